//! Build scripts, compilers and cargo run without the library.

fn main() {
    assert!(std::env::var_os("LD_PRELOAD").is_none());
    println!("cargo::rerun-if-changed=build.rs");
}
