fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,lib739kv.so");
    // A look-up of a name may outlive the client: its thread must find its code after dlclose, too.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
