//! The recorded transcripts of agents, and what JavaScript made of them, event for event.

use active_runs::{
    format::{AgentEnd, Errors, FormatName, Prompt, Translator},
    json::{Document, JsonStr, Value},
    message::{Message, StoreFormat},
    ui::{EventSink, UiEvent},
};
use flate2::read::GzDecoder;
use std::{fs::File, io::Read, path::Path};

/// The time that stands for every time in the transcripts.
const NOW_MS: u64 = 1_771_000_000_000;

#[test]
fn named_transcripts_give_what_javascript_made_of_them() {
    assert_eq!(check("named"), 111);
}

#[test]
fn random_transcripts_give_what_javascript_made_of_them() {
    assert_eq!(check("random"), 250);
}

#[test]
fn recordings_give_what_javascript_made_of_them() {
    assert_eq!(check("recordings"), 37);
}

/// Keeps events as JSON, and folds them into a message.
struct Reader {
    events: Vec<String>,
    message: Message,
}

impl EventSink for Reader {
    fn event(&mut self, event: UiEvent<'_>) {
        let mut json = Vec::new();
        event.write_json(&mut json);
        let json = String::from_utf8(json).expect("events are text");
        assert_eq!(Document::parse(&json).expect(&json).root().stringify(), json);
        // These the module does not have, and its readers are not given.
        if !matches!(event, UiEvent::ToolProgress { .. } | UiEvent::ExtraChunk(_)) {
            self.events.push(json);
        }
        self.message.event(event);
    }
}

/// Plays every transcript of a file; returns how many there were.
fn check(file: &str) -> usize {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("__test__/conformance/{file}.json.gz"));
    let mut json = String::new();
    GzDecoder::new(File::open(&path).expect("the transcripts are there"))
        .read_to_string(&mut json)
        .expect("the transcripts are text");
    let transcripts = Document::parse(&json).expect("the transcripts are JSON");
    transcripts.root().items().map(play).count()
}

fn play(transcript: Value<'_>) {
    let text = |key: &str| Some(transcript.get(key)?.as_str()?.decode()?.into_owned());
    let name = text("name").expect("a transcript has a name");
    let stdout = match text("stdoutBase64") {
        Some(encoded) => base64(&encoded),
        None => text("stdout").expect("a transcript has stdout").into_bytes(),
    };
    let stderr = text("stderr").expect("a transcript has stderr");
    let prompt = Prompt { agent_session_id: text("agentSessionId"), ..Prompt::default() };

    let mut reader = Reader {
        events: Vec::new(),
        message: Message::new("assistant-SID-T", StoreFormat::Module),
    };
    let mut translator = Translator::new(FormatName::OpenClaw, &prompt, Errors::Module);
    for line in stdout.split(|byte| matches!(byte, b'\n' | b'\r')) {
        translator.line(line, NOW_MS, &mut reader);
    }
    let exit = text("exit").expect("a transcript has an end");
    // `SIG9` and the like are no numbers.
    let end = AgentEnd { stderr: &stderr, exit_code: exit.parse().ok(), is_stopped: false };
    translator.finish(end, NOW_MS, &mut reader);

    let expect = transcript.get("expect").expect("a transcript has expectations");
    let events = expect.get("events").into_iter().flat_map(Value::items);
    let expected: Vec<_> = events.filter(|event| !event.is_null()).map(with_time).collect();
    assert_eq!(reader.events, expected, "{name}");

    let stored: Vec<_> = expect.get("stored").into_iter().flat_map(Value::items).collect();
    match stored.as_slice() {
        [] => assert!(reader.message.is_empty(), "{name}"),
        [expected] => {
            let mut line = Vec::new();
            reader.message.write_line(&mut line, "T", false).expect("memory can be written");
            assert_eq!(String::from_utf8_lossy(&line), expected.stringify(), "{name}");
        }
        _ => panic!("{name}: one message is stored"),
    }
}

/// An expected event, with the time put back into the id of its part.
fn with_time(event: Value<'_>) -> String {
    let mut event = Document::parse(&event.stringify()).expect("an event is JSON");
    let root = event.root();
    let id = root.get("id").and_then(Value::as_str).map(JsonStr::to_string_lossy);
    if let Some(id) = id.map(|id| id.replace("-T-", &format!("-{NOW_MS}-"))) {
        event.set(event.root().id(), "id", &*id);
    }
    event.root().stringify()
}

fn base64(encoded: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte| ALPHABET.iter().position(|&digit| digit == byte);
    let digits: Vec<_> = encoded.bytes().filter_map(digit).collect();
    let group = |digits: &[usize]| {
        let bits = (0..4).fold(0, |bits, place| bits << 6 | digits.get(place).unwrap_or(&0));
        (1..digits.len()).map(move |place| (bits >> (24 - 8 * place)) as u8).collect::<Vec<_>>()
    };
    digits.chunks(4).flat_map(group).collect()
}
