//! Tells the linker what a Node addon needs, and the compiler whether to use what only Linux has.

use std::env;

fn main() {
    napi_build::setup();

    // `cfg(linux)`: pidfds, clone, copy_file_range, locks of open files. Without it, the code that
    // all Unix systems share. The feature `portable` takes that on Linux, too, to test it there.
    println!("cargo::rustc-check-cfg=cfg(linux)");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux && env::var_os("CARGO_FEATURE_PORTABLE").is_none() {
        println!("cargo::rustc-cfg=linux");
    }
}
