//! JSON texts: no text makes the reader panic, and what it prints reads as the same again.
#![no_main]

use active_runs::json::{Document, JsonStr, JsonString};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let escaped = JsonStr::escape(text);
    assert_eq!(escaped.decode().expect("text has no lone surrogates"), text);
    let mut cut = JsonString::default();
    for char in text.chars() {
        cut.push(&JsonStr::escape(&char.to_string()));
    }
    assert_eq!(cut.as_str(), escaped.as_str());

    let Ok(document) = Document::parse(text) else { return };
    let plain = document.root().stringify();
    for form in [Some(plain.clone()), document.root().stringify_pretty()].into_iter().flatten() {
        let again = Document::parse(&form).expect("a printed form is JSON");
        assert_eq!(again.root().stringify(), plain);
    }
});
