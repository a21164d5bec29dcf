//! Names the shared library for the dynamic linker: the number is KVC_ABI_VERSION of kvclient.h.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libkvclient.so.0");
    // A look-up of a name may outlive the client: its thread must find its code after dlclose, too.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
