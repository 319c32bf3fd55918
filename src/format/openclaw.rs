//! OpenClaw's lines (`openclaw agent --stream-json`): the agent of the TypeScript module, whose
//! behaviour this is to the byte. The README lists the lines.

mod line;
mod tool_result;

use super::{Format, LineKind, Prompt, error_text};
use crate::{
    command::{AgentCommand, Environment, variable},
    json::{self, Cursor, JsonStr, JsonString, JsonValue, RawStr, RawValue},
    ui::{EventSink, Ui},
};
use line::{AgentEvent, AgentLine};
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    mem,
    path::{Path, PathBuf},
};

/// How many other runs are remembered by their id, the latest ones.
const MAX_OTHER_RUNS: usize = 1_024;

/// How many of its own are.
const MAX_OWN_RUNS: usize = 16;

/// Longer ids, in bytes, are not remembered.
const MAX_RUN_ID: usize = 256;

/// What the agent reports of its model is kept up to this length, in bytes.
const MAX_AGENT: usize = 64 * 1024;

/// How far above the working directory the package root is looked for.
const FOLDERS_ABOVE: usize = 19;

/// Reads OpenClaw's lines.
#[derive(Debug, Default)]
pub struct OpenClaw {
    /// The key on this run's own lines. Without it every line counts as its own.
    own_session_key: Option<JsonString>,
    /// The ids of runs last seen on other sessions' lines.
    other_runs: Vec<JsonString>,
    /// Those that earlier runs of this session had on their lines.
    earlier_runs: Vec<JsonString>,
    /// Those last seen on this run's own lines, the latest at the end.
    own_runs: Vec<JsonString>,
    /// The texts of the line with the turn's result.
    result: Option<JsonString>,
    /// What that line reports of the model.
    agent: Option<JsonValue>,
}

impl Format for OpenClaw {
    fn new(prompt: &Prompt) -> Self {
        let own_session_key = session_key(prompt).map(|key| JsonString::from(&*key));
        Self { own_session_key, ..Self::default() }
    }

    /// `node SCRIPT agent --agent main --message MESSAGE --stream-json`, in the package's root.
    fn default_command(
        prompt: &Prompt,
        env: Environment,
        cwd: &Path,
        exists: &dyn Fn(&Path) -> bool,
    ) -> AgentCommand {
        let root = package_root(variable(&env, "OPENCLAW_ROOT"), cwd, exists);
        let development = root.join("scripts").join("run-node.mjs");
        let script = if exists(&development) { development } else { root.join("openclaw.mjs") };
        let mut args: Vec<OsString> = vec![script.into()];
        let fixed = ["agent", "--agent", "main", "--message", &prompt.message, "--stream-json"];
        args.extend(fixed.map(OsString::from));
        if let Some(key) = session_key(prompt) {
            args.extend(["--session-key", &key, "--lane", "subagent"].map(OsString::from));
        }
        AgentCommand { program: "node".into(), args, cwd: root, env }
    }

    fn line<S: EventSink>(&mut self, line: &[u8], ui: &mut Ui<'_, S>) -> LineKind {
        // Node's decoder replaces invalid bytes as Rust's lossy one does, which is a slow way to
        // find that there are none.
        let text = match str::from_utf8(line) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(line),
        };
        match AgentLine::read(&text) {
            Ok(line) => self.read(line, ui),
            Err(_) => separated(&text)
                .map(|piece| match AgentLine::read(piece) {
                    Ok(line) => self.read(line, ui),
                    Err(_) if json::trim(piece).is_empty() => LineKind::Blank,
                    Err(_) => LineKind::Unreadable,
                })
                .max()
                .unwrap_or(LineKind::Blank),
        }
    }

    fn last_words(&self) -> Option<&JsonStr> {
        self.result.as_deref()
    }

    fn agent(&self) -> Option<&JsonValue> {
        self.agent.as_ref()
    }

    fn skip_runs(&mut self, ids: Vec<JsonString>) {
        self.earlier_runs = ids;
    }

    fn own_runs(&self) -> &[JsonString] {
        &self.own_runs
    }
}

impl OpenClaw {
    fn read<S: EventSink>(&mut self, line: Option<AgentLine<'_>>, ui: &mut Ui<'_, S>) -> LineKind {
        let Some(line) = line else { return LineKind::Unreadable };
        if self.is_other_sessions(&line) || self.is_earlier_runs(&line) {
            return LineKind::OtherSession;
        }
        self.act(line.event, ui);
        LineKind::Event
    }

    /// Whether a line is of another session: by its session key, or, if it has none, by its run.
    fn is_other_sessions(&mut self, line: &AgentLine<'_>) -> bool {
        let Some(own) = &self.own_session_key else { return false };
        let run_id = line.run_id.map(RawStr::json);
        let known = run_id
            .as_deref()
            .and_then(|run_id| self.other_runs.iter().rposition(|other| **other == *run_id));
        let Some(key) = line.session_key.filter(|key| !key.is_empty()) else {
            return known.is_some();
        };
        let other = *key.json() != **own;
        match (known, run_id) {
            (Some(place), _) if !other => drop(self.other_runs.remove(place)),
            (None, Some(run_id)) if other => {
                if self.other_runs.len() == MAX_OTHER_RUNS {
                    self.other_runs.remove(0);
                }
                self.other_runs.push(run_id.into_owned());
            }
            _ => {}
        }
        other
    }

    /// Whether a line is of an earlier run of this session, with which the agent's gateway went on when
    /// the agent was stopped. One in which a turn begins is not: the agent names all its runs alike.
    fn is_earlier_runs(&mut self, line: &AgentLine<'_>) -> bool {
        let Some(run_id) = line.run_id.map(RawStr::json) else { return false };
        if self.own_runs.last().is_some_and(|last| **last == *run_id) {
            return false;
        }
        if let Some(place) = self.earlier_runs.iter().position(|earlier| **earlier == *run_id) {
            if !matches!(line.event, AgentEvent::LifecycleStart) {
                return true;
            }
            self.earlier_runs.remove(place);
        }
        if run_id.as_str().len() <= MAX_RUN_ID {
            self.own_runs.retain(|own| **own != *run_id);
            if self.own_runs.len() == MAX_OWN_RUNS {
                self.own_runs.remove(0);
            }
            self.own_runs.push(run_id.into_owned());
        }
        false
    }

    fn act<S: EventSink>(&mut self, event: AgentEvent<'_>, ui: &mut Ui<'_, S>) {
        match event {
            AgentEvent::LifecycleStart => ui.status("Preparing response..."),
            AgentEvent::LifecycleEnd => ui.end_turn(),
            AgentEvent::Thinking { delta } => ui.thinking(&delta.json()),
            AgentEvent::Assistant { delta, media_urls, error, is_at_length_limit } => {
                if let Some(is_at_length_limit) = is_at_length_limit {
                    ui.model_stopped(is_at_length_limit);
                }
                if let Some(delta) = delta {
                    ui.text(&delta.json());
                }
                if let Some(urls) = media_urls {
                    // Cannot fail: the array was read before.
                    let _ = Cursor::new(urls.text()).items(|cursor| {
                        if let Some(url) = cursor.value()?.as_str() {
                            ui.media(&url.json());
                        }
                        Ok(())
                    });
                }
                // Shown even if it is empty.
                if let Some(body) = error
                    && !ui.is_error_reported()
                {
                    ui.error(&error_text::of_body(&body.json()));
                }
            }
            AgentEvent::ToolStart { id, name, args } => {
                let input = args.map_or_else(JsonValue::empty_object, JsonValue::from);
                ui.tool_call(&or_empty(id), &or_empty(name), &input);
            }
            AgentEvent::ToolUpdate { id, partial } => {
                ui.tool_progress(&or_empty(id), &tool_result::output(Some(partial)));
            }
            AgentEvent::ToolResult { id, result, is_error } => {
                let id = &or_empty(id);
                match is_error {
                    true => ui.tool_error(id, &tool_result::error_text(result)),
                    false => ui.tool_output(id, &tool_result::output(result)),
                }
                for (media_type, url) in result.map(tool_result::pictures).unwrap_or_default() {
                    ui.tool_picture(&media_type, &url);
                }
            }
            AgentEvent::CompactionStart => {
                ui.status("Optimizing session context...");
            }
            AgentEvent::CompactionEnd { will_retry: true } => {
                ui.status_note("\nRetrying with compacted context...");
            }
            AgentEvent::CompactionEnd { will_retry: false } => ui.end_status(),
            AgentEvent::Error(body) => {
                if let Some(body) = body
                    && !ui.is_error_reported()
                {
                    let body = body.json();
                    let message = error_text::of_body(&body);
                    if !message.is_empty() {
                        ui.error(&message);
                    }
                }
            }
            AgentEvent::Result { payloads, agent } => {
                if let Some(payloads) = payloads {
                    self.result = texts_of(payloads);
                }
                if let Some(agent) = agent.filter(|agent| agent.text().len() <= MAX_AGENT) {
                    self.agent = Some(agent.into());
                }
            }
            AgentEvent::Chunk(chunk) => ui.read_chunk(chunk),
            AgentEvent::Other => {}
        }
    }
}

fn or_empty(text: Option<RawStr<'_>>) -> Cow<'_, JsonStr> {
    text.map_or_else(|| JsonStr::escape(""), RawStr::json)
}

/// The pieces of a line at the U+2028 and U+2029 that stand outside its strings; the line itself
/// if there are none. Inside a string they are text.
fn separated(line: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut escape) = (false, false);
    line.split(move |char| {
        let escaped = mem::take(&mut escape);
        match char {
            '"' if !escaped => in_string = !in_string,
            '\\' if in_string && !escaped => escape = true,
            '\u{2028}' | '\u{2029}' => return !in_string,
            _ => {}
        }
        false
    })
}

/// The texts of the payloads of a result, joined by a new line; none when there is nothing to show.
fn texts_of(payloads: RawValue<'_>) -> Option<JsonString> {
    let mut texts = JsonString::default();
    // Cannot fail: the value was read before.
    let _ = Cursor::new(payloads.text()).items(|cursor| {
        if cursor.peek() != Some(b'{') {
            return cursor.value().map(drop);
        }
        let mut text = None;
        cursor.members(|cursor, key| {
            let value = cursor.value()?;
            if key.json().as_str() == "text" {
                text = value.as_str();
            }
            Ok(())
        })?;
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            if !texts.is_empty() {
                texts.push(&JsonStr::escape("\n"));
            }
            texts.push(&text.json());
        }
        Ok(())
    });
    (!texts.is_empty()).then_some(texts)
}

/// The key under which the agent's gateway knows the conversation, and which is on its lines.
fn session_key(prompt: &Prompt) -> Option<String> {
    let id = prompt.agent_session_id.as_deref().filter(|id| !id.is_empty())?;
    Some(format!("agent:main:subagent:{id}"))
}

/// The folder with the agent's scripts.
fn package_root(from_env: Option<&OsStr>, cwd: &Path, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    if let Some(root) = from_env.filter(|root| !root.is_empty()) {
        let root = cwd.join(root);
        if exists(&root) {
            return root;
        }
    }
    let is_root = |folder: &&Path| {
        exists(&folder.join("openclaw.mjs")) || exists(&folder.join("scripts/run-node.mjs"))
    };
    if let Some(root) = cwd.ancestors().take(1 + FOLDERS_ABOVE).find(is_root) {
        return root.to_owned();
    }
    match cwd.ends_with("apps/web") {
        true => cwd.ancestors().nth(2).unwrap_or(cwd).to_owned(),
        false => cwd.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::{Errors, FormatName, Translator, tests::as_the_module},
        ui::{UiEvent, UiState, tests::Seen},
    };
    use std::fs;

    fn text(delta: &str) -> String {
        format!(r#"{{"event":"agent","stream":"assistant","data":{{"delta":"{delta}"}}}}"#)
    }

    fn in_conversation(id: &str) -> Translator {
        let prompt = Prompt { agent_session_id: Some(id.into()), ..Prompt::default() };
        Translator::new(FormatName::OpenClaw, &prompt, Errors::Module)
    }

    fn said(lines: &[&str]) -> (Vec<LineKind>, Vec<String>) {
        let (mut translator, mut seen) = (as_the_module(), Seen::default());
        let kinds = lines.iter().map(|line| translator.line(line.as_bytes(), 5, &mut seen));
        (kinds.collect(), seen.0)
    }

    #[test]
    fn a_line_is_told_by_what_became_of_it() {
        let (kinds, seen) =
            said(&["", " \t\u{feff}\u{2028}", "log", "null", "{", "5", "{}", &text("a"), "[null]"]);
        use LineKind::{Blank, Event, Unreadable};
        let rest = [Unreadable, Unreadable, Unreadable, Event, Event, Event, Event];
        assert_eq!(kinds[..2], [Blank, Blank]);
        assert_eq!(kinds[2..], rest);
        assert_eq!(seen, ["<text-5-1>", "a"]);
    }

    #[test]
    fn a_line_separator_is_text_inside_a_string_and_a_line_end_outside() {
        let inside = text("x\u{2028}y\u{2029}");
        let two = format!("{}\u{2028}{}", text("a\\\"\u{2029}"), text("b"));
        let broken = format!("log\u{2028}{}\u{2029}null", text("c"));
        let (kinds, seen) = said(&[&inside, &two, &broken, "a\u{2028}b", "\"\u{2028}{}"]);
        assert_eq!(seen, ["<text-5-1>", "x\u{2028}y\u{2029}", "a\\\"\u{2029}", "b", "c"]);
        assert_eq!(kinds[..3], [LineKind::Event; 3]);
        assert_eq!(kinds[3..], [LineKind::Unreadable; 2]);
    }

    #[test]
    fn a_delta_that_needs_no_change_is_not_copied() {
        struct Within(std::ops::Range<*const u8>, usize);
        impl EventSink for Within {
            fn event(&mut self, event: UiEvent<'_>) {
                if let UiEvent::TextDelta { delta, .. } = event {
                    assert!(self.0.contains(&delta.as_str().as_ptr()));
                    self.1 += 1;
                }
            }
        }
        let line = text(r"plain \n é");
        let mut sink = Within(line.as_bytes().as_ptr_range(), 0);
        as_the_module().line(line.as_bytes(), 0, &mut sink);
        assert_eq!(sink.1, 1);
    }

    #[test]
    fn other_sessions_lines_are_skipped_by_key_and_by_run() {
        let line = |key: &str, run: &str, delta: &str| {
            format!(
                r#"{{"event":"agent",{key}{run}"stream":"assistant","data":{{"delta":"{delta}"}}}}"#
            )
        };
        let [own, other] =
            ["agent:main:subagent:ID", "you"].map(|key| format!(r#""sessionKey":"{key}","#));
        let [run_1, run_2] = ["1", "2"].map(|run| format!(r#""runId":"{run}","#));
        let lines = [
            (line("", &run_1, "a"), true),
            (line(&other, &run_1, "-"), false),
            (line("", &run_1, "-"), false),
            (line(r#""sessionKey":"","#, &run_1, "-"), false),
            (line(r#""sessionKey":5,"#, r#""runId":"\u0031","#, "-"), false),
            (line("", &run_2, "b"), true),
            (line("", "", "c"), true),
            (line(&own, &run_1, "d"), true),
            (line("", &run_1, "e"), true),
            (line(&other, "", "-"), false),
            (line("", "", "f"), true),
        ];
        let mut translator = in_conversation("ID");
        let mut seen = Seen::default();
        for (line, is_own) in &lines {
            let kind = translator.line(line.as_bytes(), 5, &mut seen);
            let expected = if *is_own { LineKind::Event } else { LineKind::OtherSession };
            assert_eq!(kind, expected, "{line}");
        }
        assert_eq!(seen.0, ["<text-5-1>", "a", "b", "c", "d", "e", "f"]);
        // Without a key of its own a run takes every line.
        for (line, _) in &lines {
            let kind = as_the_module().line(line.as_bytes(), 5, &mut Seen::default());
            assert_eq!(kind, LineKind::Event);
        }
    }

    #[test]
    fn only_so_many_other_runs_are_remembered() {
        let prompt = Prompt { agent_session_id: Some("ID".into()), ..Prompt::default() };
        let mut reader = OpenClaw::new(&prompt);
        let (mut state, mut seen) = (UiState::default(), Seen::default());
        for run in 0..MAX_OTHER_RUNS + 10 {
            let line = format!(r#"{{"sessionKey":"you","runId":"{run}"}}"#);
            reader.line(line.as_bytes(), &mut state.at(0, &mut seen));
        }
        assert_eq!(reader.other_runs.len(), MAX_OTHER_RUNS);
        let last = format!(r#"{{"runId":"{}"}}"#, MAX_OTHER_RUNS + 9);
        let kind = reader.line(last.as_bytes(), &mut state.at(0, &mut seen));
        assert_eq!(kind, LineKind::OtherSession);
    }

    #[test]
    fn an_earlier_runs_lines_are_skipped_until_a_turn_of_its_name_begins() {
        let line = |run: &str, stream: &str, data: &str| {
            format!(r#"{{"event":"agent","runId":{run},"stream":"{stream}","data":{{{data}}}}}"#)
        };
        let text = |run: &str, text: &str| line(run, "assistant", &format!(r#""delta":"{text}""#));
        let start = |run: &str| line(run, "lifecycle", r#""phase":"start""#);
        let mut stopped = as_the_module();
        for run in ["\"1\"", "\"2\"", "\"1\"", "5"] {
            stopped.line(text(run, "a").as_bytes(), 5, &mut Seen::default());
        }
        let own: Vec<_> = stopped.own_runs().iter().map(|id| id.as_str()).collect();
        assert_eq!(own, ["2", "1"]);

        let mut next = as_the_module();
        next.skip_runs(stopped.own_runs().to_vec());
        let mut seen = Seen::default();
        let lines = [
            (text("\"1\"", "-"), false),
            (text("\"\\u0032\"", "-"), false),
            (line("\"1\"", "tool", r#""phase":"result","toolCallId":"t","result":"r""#), false),
            (line("\"1\"", "lifecycle", r#""phase":"end""#), false),
            (text("null", "a"), true),
            (text("\"3\"", "b"), true),
            (text("\"2\"", "-"), false),
            (start("\"1\""), true),
            (text("\"1\"", "c"), true),
            (text("\"2\"", "-"), false),
        ];
        for (line, is_own) in lines {
            let kind = next.line(line.as_bytes(), 5, &mut seen);
            let expected = if is_own { LineKind::Event } else { LineKind::OtherSession };
            assert_eq!(kind, expected, "{line}");
        }
        let texts: Vec<_> = seen.0.iter().filter(|text| text.len() == 1).collect();
        assert_eq!(texts, ["a", "b", "c"]);
    }

    #[test]
    fn only_so_many_own_runs_are_remembered() {
        let mut translator = as_the_module();
        for run in 0..MAX_OWN_RUNS + 3 {
            let line = format!(r#"{{"runId":"{run}"}}"#);
            translator.line(line.as_bytes(), 0, &mut Seen::default());
        }
        let long = format!(r#"{{"runId":"{}"}}"#, "x".repeat(MAX_RUN_ID + 1));
        translator.line(long.as_bytes(), 0, &mut Seen::default());
        let own: Vec<_> = translator.own_runs().iter().map(|id| id.as_str().to_owned()).collect();
        let expected: Vec<_> = (3..MAX_OWN_RUNS + 3).map(|run| run.to_string()).collect();
        assert_eq!(own, expected);
    }

    #[test]
    fn a_status_is_replaced_by_what_it_announced() {
        let line = |stream: &str, data: &str| {
            format!(r#"{{"event":"agent","stream":"{stream}","data":{{{data}}}}}"#)
        };
        let lines = [
            line("lifecycle", r#""phase":"start""#),
            line("compaction", r#""phase":"start""#),
            line("compaction", r#""phase":"end","willRetry":true"#),
            line("thinking", r#""delta":"hm""#),
            line("compaction", r#""phase":"end""#),
            line("tool", r#""phase":"start","toolCallId":"t","name":"n","args":[1.0]"#),
            line("tool", r#""phase":"result","toolCallId":"t","result":"r""#),
        ];
        let (_, seen) = said(&lines.each_ref().map(String::as_str));
        assert_eq!(
            seen,
            [
                "<status-5-1>",
                "Preparing response...",
                "</status-5-1>",
                "<status-5-2>",
                "Optimizing session context...",
                r"\nRetrying with compacted context...",
                "</status-5-2>",
                "<reasoning-5-3>",
                "hm",
                "</reasoning-5-3>",
                r#"{"type":"tool-input-start","toolCallId":"t","toolName":"n"}"#,
                r#"{"type":"tool-input-available","toolCallId":"t","toolName":"n","input":[1]}"#,
                r#"{"type":"tool-output-available","toolCallId":"t","output":{"text":"r"}}"#,
            ]
        );
    }

    fn command(cwd: &Path, env: &[(&str, &str)]) -> AgentCommand {
        let prompt = Prompt { message: "hello {sessionId}".into(), agent_session_id: None };
        let env = env.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        OpenClaw::default_command(&prompt, env, cwd, &|path| path.exists())
    }

    fn file(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_environment_names_the_root_if_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let (root, work) = (dir.path().join("root"), dir.path().join("work"));
        file(root.join("scripts/run-node.mjs"));
        file(work.join("openclaw.mjs"));
        let found = command(&work, &[("OPENCLAW_ROOT", root.to_str().unwrap())]);
        assert_eq!(found.cwd, root);
        assert_eq!(found.args[0], root.join("scripts/run-node.mjs"));
        for missing in ["", "/nowhere/at/all"] {
            assert_eq!(command(&work, &[("OPENCLAW_ROOT", missing)]).cwd, work);
        }
    }

    #[test]
    fn the_root_is_the_first_folder_upwards_that_holds_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let deep = |levels: usize| dir.path().join(vec!["d"; levels].join("/"));
        file(dir.path().join("openclaw.mjs"));
        fs::create_dir_all(deep(20)).unwrap();
        assert_eq!(command(&deep(19), &[]).cwd, dir.path());
        assert_eq!(command(&deep(20), &[]).cwd, deep(20));
    }

    #[test]
    fn the_web_app_is_two_levels_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let web = dir.path().join("apps/web");
        fs::create_dir_all(&web).unwrap();
        let found = command(&web, &[]);
        assert_eq!(found.cwd, dir.path());
        assert_eq!(found.args[0], dir.path().join("openclaw.mjs"));
    }

    #[test]
    fn the_arguments_are_the_contracts() {
        let mut prompt = Prompt { message: "hello".into(), agent_session_id: Some("ID".into()) };
        let args = |prompt: &Prompt| {
            let command = OpenClaw::default_command(prompt, Vec::new(), Path::new("/"), &|_| false);
            assert_eq!(command.program, "node");
            command.args
        };
        assert_eq!(
            args(&prompt)[1..],
            "agent|--agent|main|--message|hello|--stream-json|--session-key|\
             agent:main:subagent:ID|--lane|subagent"
                .split('|')
                .collect::<Vec<_>>()
        );
        prompt.agent_session_id = Some(String::new());
        assert_eq!(args(&prompt).len(), 7);
    }
}
