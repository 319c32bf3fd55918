//! Everything that JavaScript can call, and nothing else: converts what crosses the boundary.
//!
//! The public functions, their checks of types and the objects they return are JavaScript (`lib/`):
//! errors and objects made here would belong to another realm in a test runner's sandbox.

#![cfg_attr(test, allow(dead_code, reason = "napi registers nothing in unit tests"))]

mod bell;
mod copies;
mod frames;
mod process_end;
mod run_handle;
mod sessions;
mod settings;
mod stats;

use crate::error::Error;

/// A stable word, as the `code` of the error that is thrown.
pub struct Code(&'static str);

impl AsRef<str> for Code {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl std::convert::From<Error> for napi::Error<Code> {
    fn from(error: Error) -> Self {
        Self::new(Code(error.code()), error.to_string())
    }
}

/// Node-API itself has failed.
fn internal(error: napi::Error) -> napi::Error<Code> {
    napi::Error::new(Code("INTERNAL"), error.to_string())
}

impl std::convert::From<Code> for napi::Error<Code> {
    fn from(code: Code) -> Self {
        let reason = code.0.to_owned();
        Self::new(code, reason)
    }
}

/// What throws an error with a [`Code`].
type Result<T> = napi::Result<T, Code>;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// A panic that goes on into Node.js' own frames ends the process.
    #[test]
    fn a_panic_is_caught_in_every_function_that_javascript_can_call() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
        let mut functions = 0;
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let mut attribute = "";
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[napi") {
                    attribute = line;
                } else if line.starts_with("pub fn") && !attribute.is_empty() {
                    assert!(attribute.contains("catch_unwind"), "{}: {line}", path.display());
                    functions += 1;
                    attribute = "";
                } else if line.starts_with("pub struct") || line.starts_with("impl") {
                    attribute = "";
                }
            }
        }
        assert!(functions > 30, "{functions}");
    }
}
