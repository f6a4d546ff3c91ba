//! Links the shared library so that it stays: a `dlclose` leaves it mapped. Threads that end, forks and signals call it
//! long after whoever opened it has closed it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
