//! Names the shared library for the dynamic linker: the number is KVC_ABI_VERSION of kvclient.h.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libkvclient.so.0");
    // The lookup of a name may outlive the client, and its thread must find its code even after
    // dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
