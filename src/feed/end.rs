//! How a run ended, and what its readers are sent about that.

use crate::json::JsonValue;
use std::sync::Arc;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The agent exited with code 0.
    Completed,
    /// The agent exited with another code, or nobody knows how it ended.
    Failed,
    /// The run was aborted.
    Aborted,
    /// A signal that this package did not send ended the agent: a crash, or a lack of memory.
    Killed,
    /// It took longer, or was silent for longer, than it may.
    TimedOut,
    /// The server ended.
    Interrupted,
    /// The agent could not be started.
    StartFailed,
    /// It printed more than a run may keep.
    TooLarge,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// Why.
    pub reason: Reason,
    /// The agent's exit code; none when a signal ended it or it is not known. Negative, the system's
    /// error number, when it could not be started.
    pub exit_code: Option<i32>,
    /// The signal that ended the agent.
    pub signal: Option<i32>,
    /// The error that its stream tells, if it tells one.
    pub error: Option<String>,
    /// When, in milliseconds since 1970.
    pub ended_at: u64,
    /// What the agent reported of its model and usage: an object.
    pub agent: Option<Arc<JsonValue>>,
    /// The model stopped because its answer is as long as it may be.
    pub is_at_length_limit: bool,
}

/// An end in the terms of the AI SDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is complete, or as long as it may be.
    Answered,
    /// Somebody stopped the run.
    Aborted,
    /// It failed, for this reason.
    Failed(String),
}

impl Reason {
    /// Its name in the public API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Killed => "killed",
            Self::TimedOut => "timed-out",
            Self::Interrupted => "interrupted",
            Self::StartFailed => "start-failed",
            Self::TooLarge => "too-large",
        }
    }
}

impl RunEnd {
    /// An end of which nothing but this is known.
    pub fn new(reason: Reason, ended_at: u64) -> Self {
        Self {
            reason,
            exit_code: None,
            signal: None,
            error: None,
            ended_at,
            agent: None,
            is_at_length_limit: false,
        }
    }

    /// The end in the terms of the AI SDK.
    pub fn outcome(&self) -> Outcome {
        if self.reason == Reason::Aborted {
            return Outcome::Aborted;
        }
        let unexplained = match self.reason {
            Reason::Completed | Reason::Aborted => None,
            Reason::Failed => Some(match self.exit_code {
                Some(code) => format!("The agent exited with code {code}"),
                None => "The agent failed".to_owned(),
            }),
            Reason::Killed => Some(match self.signal {
                Some(signal) => format!("The agent was ended by signal {signal}"),
                None => "The agent was ended by a signal".to_owned(),
            }),
            Reason::TimedOut => Some("The agent took too long".to_owned()),
            Reason::Interrupted => Some("The server ended before the answer did".to_owned()),
            Reason::StartFailed => Some("The agent could not be started".to_owned()),
            Reason::TooLarge => Some("The agent printed too much".to_owned()),
        };
        let error = self.error.clone().or(unexplained);
        error.map_or(Outcome::Answered, Outcome::Failed)
    }

    /// The AI SDK's reason for the end of the message.
    pub fn finish_reason(&self) -> &'static str {
        match self.outcome() {
            Outcome::Answered if self.is_at_length_limit => "length",
            Outcome::Answered => "stop",
            Outcome::Aborted => "other",
            Outcome::Failed(_) => "error",
        }
    }

    /// The message's metadata once the run, begun at `started_at`, has ended.
    pub fn metadata(&self, started_at: u64) -> JsonValue {
        let Self { ended_at, reason, agent, .. } = self;
        let duration = ended_at.saturating_sub(started_at);
        let agent = agent.as_ref().map(|agent| format!(r#","agent":{}"#, agent.text()));
        let (reason, agent) = (reason.name(), agent.unwrap_or_default());
        let times =
            format!(r#""startedAt":{started_at},"endedAt":{ended_at},"durationMs":{duration}"#);
        JsonValue::canonical(format!(r#"{{{times},"end":"{reason}"{agent}}}"#))
    }

    /// Whether the module would call the run's status `error` (else `completed`).
    pub fn is_error(&self) -> bool {
        match self.reason {
            Reason::Completed | Reason::Killed => false,
            Reason::Failed | Reason::StartFailed | Reason::TimedOut | Reason::TooLarge => true,
            // The module goes by the exit code alone.
            Reason::Aborted | Reason::Interrupted => self.exit_code.is_some_and(|code| code != 0),
        }
    }
}

/// The message's metadata while the run goes on. `started_at`: in milliseconds since 1970.
pub fn metadata_at_start(started_at: u64) -> JsonValue {
    JsonValue::canonical(format!(r#"{{"startedAt":{started_at}}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(reason: Reason) -> RunEnd {
        RunEnd::new(reason, 1_500)
    }

    #[test]
    fn the_status_is_the_modules() {
        let is_error = |reason, exit_code| RunEnd { exit_code, ..ended(reason) }.is_error();
        assert!(!is_error(Reason::Completed, Some(0)));
        assert!(!is_error(Reason::Killed, None));
        assert!(!is_error(Reason::Aborted, None));
        assert!(is_error(Reason::Aborted, Some(143)));
        assert!(is_error(Reason::Failed, None), "an end that nobody knows is no success");
        assert!(is_error(Reason::TimedOut, None));
    }

    #[test]
    fn metadata_say_when_and_how() {
        let agent = Some(Arc::new(JsonValue::canonical(r#"{"model":"m"}"#.to_owned())));
        let end = RunEnd { agent, ..ended(Reason::TimedOut) };
        let expected = r#"{"startedAt":1000,"endedAt":1500,"durationMs":500,"end":"timed-out","agent":{"model":"m"}}"#;
        assert_eq!(end.metadata(1_000).text(), expected);
        let put_back = RunEnd { ended_at: 0, agent: None, ..end };
        assert!(put_back.metadata(1_000).text().contains(r#""durationMs":0,"#));
        assert_eq!(metadata_at_start(7).text(), r#"{"startedAt":7}"#);
    }

    #[test]
    fn the_ai_sdk_is_told_of_failures_and_of_what_was_stopped() {
        use Reason::*;
        assert_eq!(ended(Completed).finish_reason(), "stop");
        let at_limit = RunEnd { is_at_length_limit: true, ..ended(Completed) };
        assert_eq!(at_limit.finish_reason(), "length");
        let aborted = RunEnd { error: Some("told before".into()), ..ended(Aborted) };
        assert_eq!((aborted.outcome(), aborted.finish_reason()), (Outcome::Aborted, "other"));
        for reason in [Failed, Killed, TimedOut, Interrupted, StartFailed, TooLarge] {
            let end = ended(reason);
            assert!(matches!(end.outcome(), Outcome::Failed(why) if !why.is_empty()));
            assert_eq!(end.finish_reason(), "error");
        }
        let told = RunEnd { error: Some("no key".into()), ..ended(Completed) };
        assert_eq!(told.outcome(), Outcome::Failed("no key".into()));
        let exited = RunEnd { exit_code: Some(3), ..ended(Failed) };
        assert_eq!(exited.outcome(), Outcome::Failed("The agent exited with code 3".into()));
    }
}
