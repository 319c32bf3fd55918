//! The agent's output, from bytes to events, to the log, and to the stored message: parts are
//! balanced, every event and the message are JSON, whatever the agent says.
#![no_main]

use active_runs::{
    format::{AgentEnd, Errors, FormatName, Prompt, Translator},
    json::Document,
    lines::{Line, LineSplitter},
    message::{Message, StoreFormat},
};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/balance/mod.rs"]
mod balance;

use balance::{Balance, Both};

fuzz_target!(|input: (Option<i32>, bool, bool, bool, &str, &[u8])| {
    let (exit_code, is_subagent, is_full, is_stopped, stderr, stdout) = input;
    let prompt =
        Prompt { agent_session_id: is_subagent.then(|| "k".into()), ..Prompt::default() };
    let errors = if is_full { Errors::Full } else { Errors::Module };
    // Not an input of its own: that would invalidate the corpus.
    let format = if is_stopped { StoreFormat::Ui } else { StoreFormat::Module };
    let mut both = Both(Balance::default(), Message::new("id", format));
    let mut translator = Translator::new(FormatName::OpenClaw, &prompt, errors);
    let mut splitter = LineSplitter::new(10_000);
    let mut take = |line: Line<'_>| {
        if let Line::Bytes(line) = line {
            translator.line(line, 1, &mut both);
        }
    };
    splitter.feed(stdout, &mut take);
    splitter.end(&mut take);
    translator.finish(AgentEnd { stderr, exit_code, is_stopped }, 2, &mut both);
    let Both(balance, message) = both;
    balance.expect_closed();
    let mut stored = Vec::new();
    message.write_line(&mut stored, "T", true).expect("memory can be written");
    let stored = String::from_utf8(stored).expect("a message is text");
    let reread = Document::parse(&stored).expect("a message is JSON");
    // Two keys that were halves of surrogate pairs may be one then.
    assert!(format == StoreFormat::Ui || reread.root().stringify() == stored);
});
