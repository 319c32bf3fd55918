//! What must hold for every input: JSON forms are stable, parts are balanced, nothing panics.

mod balance;

use active_runs::{
    format::{AgentEnd, Errors, FormatName, Prompt, Translator},
    json::{Document, JsonStr, JsonString, Rope},
    message::{Message, StoreFormat},
};
use balance::{Balance, Both};
use proptest::prelude::*;

/// JSON texts of every shape, with odd keys, odd numbers and surrogates on their own.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any::<String>().prop_map(|text| format!("\"{}\"", JsonStr::escape(&text).as_str())),
        prop::collection::vec(any::<u16>(), 0..6).prop_map(|units| {
            format!("\"{}\"", units.iter().map(|unit| format!("\\u{unit:04X}")).collect::<String>())
        }),
        "\"(delta|phase|start|result|error|message|__proto__|7|agent)\"",
    ];
    let scalar = prop_oneof![
        3 => string.clone().boxed(),
        1 => "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?".boxed(),
        1 => "null|true|false".boxed(),
    ];
    scalar.prop_recursive(5, 60, 6, move |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..6)
                .prop_map(|items| format!("[ {} ]", items.join(" ,\n"))),
            prop::collection::vec((string.clone(), value), 0..6).prop_map(|members| {
                let members = members.iter().map(|(key, value)| format!("{key} : {value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

/// A line of an agent, mostly one that means something.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let stream = "(lifecycle|thinking|assistant|tool|compaction|ui)";
    let phase = "(start|end|error|result|update)";
    let member = prop_oneof![
        phase.prop_map(|phase| format!(r#""phase":"{phase}""#)),
        any::<String>()
            .prop_map(|text| format!(r#""delta":"{}""#, JsonStr::escape(&text).as_str())),
        json().prop_map(|value| format!(r#""delta":{value}"#)),
        json().prop_map(|value| format!(r#""result":{value}"#)),
        json().prop_map(|value| format!(r#""args":{value}"#)),
        json().prop_map(|value| format!(r#""partialResult":{value}"#)),
        json().prop_map(|value| format!(r#""type":"data-x","id":"a","data":{value}"#)),
        json().prop_map(|value| format!(r#""type":"message-metadata","messageMetadata":{value}"#)),
        json().prop_map(|value| format!(r#""type":"file","url":{value},"mediaType":"m""#)),
        json().prop_map(|value| format!(r#""errorMessage":{value},"stopReason":"error""#)),
        json().prop_map(|value| format!(r#""error":{value}"#)),
        "[ab]".prop_map(|id| format!(r#""toolCallId":"{id}""#)),
        "true|false|1".prop_map(|is| format!(r#""isError":{is},"willRetry":{is}"#)),
        json().prop_map(|url| format!(r#""mediaUrls":["u",{url}," "]"#)),
    ];
    let meaning = (stream, prop::collection::vec(member, 0..5)).prop_map(|(stream, data)| {
        let data = data.join(",");
        format!(r#"{{"event":"agent","stream":"{stream}","data":{{{data}}}}}"#)
    });
    prop_oneof![
        8 => meaning.prop_map(String::into_bytes),
        1 => json().prop_map(|value| format!(r#"{{"event":"error","data":{value}}}"#).into_bytes()),
        1 => json().prop_map(|value| {
            format!(r#"{{"event":"result","result":{{"payloads":[{{"text":{value}}}, {value}]}}}}"#)
                .into_bytes()
        }),
        1 => json().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #[test]
    fn json_forms_are_stable(text in json()) {
        let document = Document::parse(&text).expect("a text of the grammar");
        let root = document.root();
        for form in [root.stringify(), root.stringify_pretty().expect("not deep")] {
            let again = Document::parse(&form).expect("a printed form is JSON");
            prop_assert_eq!(again.root().stringify(), root.stringify());
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), cut in any::<prop::sample::Index>(), json in json()) {
        let _ = Document::parse(&text);
        let cut = (0..=cut.index(json.len() + 1)).rev().find(|&at| json.is_char_boundary(at));
        let _ = Document::parse(&json[..cut.unwrap_or(0)]);
    }

    #[test]
    fn text_survives_its_escaping(text in any::<String>()) {
        let escaped = JsonStr::escape(&text);
        prop_assert_eq!(escaped.decode().expect("text has no lone surrogates"), &*text);
        prop_assert_eq!(escaped.utf16_len(), text.encode_utf16().count());
        let mut units = Vec::new();
        escaped.write_utf16(&mut units);
        prop_assert_eq!(units, text.encode_utf16().collect::<Vec<_>>());
    }

    #[test]
    fn pieces_cut_anywhere_in_utf16_join_to_the_whole(
        units in prop::collection::vec(prop_oneof![0xd7ff..=0xe000_u16, any::<u16>()], 0..40),
        cuts in prop::collection::vec(0..40_usize, 0..10),
    ) {
        let json = |units: &[u16]| {
            let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let document = Document::parse(&format!("\"{escapes}\"")).expect("escapes are JSON");
            document.root().as_str().expect("a string").to_owned()
        };
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(units.len())).collect();
        cuts.extend([0, units.len()]);
        cuts.sort_unstable();
        let (mut string, mut rope) = (JsonString::default(), Rope::default());
        for pair in cuts.windows(2) {
            let piece = json(&units[pair[0]..pair[1]]);
            string.push(&piece);
            rope.push(&piece);
        }
        let mut written = Vec::new();
        rope.write_to(&mut written).expect("memory can be written");
        prop_assert_eq!(&string, &json(&units));
        prop_assert_eq!(String::from_utf8_lossy(&written), string.as_str());
        prop_assert_eq!(rope.len(), written.len());
    }

    #[test]
    fn parts_are_balanced_whatever_the_agent_says(
        lines in prop::collection::vec(line(), 0..30),
        stderr in any::<String>(),
        code in prop::option::of(any::<i32>()),
        own in prop::option::of("[a-c]"),
        is_full in any::<bool>(),
        is_stopped in any::<bool>(),
        is_ui in any::<bool>(),
    ) {
        let format = if is_ui { StoreFormat::Ui } else { StoreFormat::Module };
        let mut both = Both(Balance::default(), Message::new("id", format));
        let prompt = Prompt { agent_session_id: own, ..Prompt::default() };
        let errors = if is_full { Errors::Full } else { Errors::Module };
        let mut translator = Translator::new(FormatName::OpenClaw, &prompt, errors);
        for line in &lines {
            translator.line(line, 1, &mut both);
        }
        let end = AgentEnd { stderr: &stderr, exit_code: code, is_stopped };
        translator.finish(end, 2, &mut both);
        let Both(balance, message) = both;
        balance.expect_closed();
        let mut stored = Vec::new();
        message.write_line(&mut stored, "T", true).expect("memory can be written");
        let stored = String::from_utf8(stored).expect("a message is text");
        let reread = Document::parse(&stored).expect("a message is JSON");
        // Two keys that were halves of surrogate pairs may be one then.
        prop_assert!(is_ui || reread.root().stringify() == stored);
    }
}
