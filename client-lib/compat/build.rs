fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,lib739kv.so");
    // The lookup of a name may outlive the client, and its thread must find its code even after
    // dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
