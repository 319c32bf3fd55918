//! The limits on a run's time: how long it may take, and for how long its agent may be silent.

use crate::settings::Settings;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// An alarm that comes so late was held up with the whole process.
const FROZEN: Duration = Duration::from_secs(1);

/// When the limits were last started, and what they are.
pub struct Watchdogs {
    started: Instant,
    max_run: Option<Duration>,
    max_silence: Option<Duration>,
    silent_since: Instant,
    /// Lines that have come.
    lines: u64,
}

/// A limit that is reached, or will be.
#[derive(Clone, Copy)]
pub struct Alarm {
    pub at: Instant,
    pub kind: AlarmKind,
    limit: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    Silence,
    Run,
}

impl Watchdogs {
    /// With the limits of these settings, from now on.
    pub fn new(settings: &Settings) -> Self {
        let now = Instant::now();
        let limit = |limit: Duration| (!limit.is_zero()).then_some(limit);
        Self {
            started: now,
            max_run: limit(settings.max_run),
            max_silence: limit(settings.max_silence),
            silent_since: now,
            lines: 0,
        }
    }

    /// So many lines have come in all; says whether there are new ones.
    pub fn count_lines(&mut self, lines: u64) -> bool {
        let has_new = lines > self.lines;
        if has_new {
            self.lines = lines;
            self.silent_since = Instant::now();
        }
        has_new
    }

    /// Starts the limit on silence anew, if the alarm comes so late that this process was frozen, and
    /// perhaps the agent with it. Says whether it did.
    pub fn forgive(&mut self, alarm: Alarm) -> bool {
        let was_frozen = alarm.kind == AlarmKind::Silence && alarm.at.elapsed() > FROZEN;
        if was_frozen {
            self.silent_since = Instant::now();
        }
        was_frozen
    }

    /// The alarm that comes next, if one will. `may_be_silent`: a tool is at work.
    pub fn next(&self, may_be_silent: bool) -> Option<Alarm> {
        let alarm = |since: Instant, kind, limit| Alarm { at: since + limit, kind, limit };
        let run = self.max_run.map(|limit| alarm(self.started, AlarmKind::Run, limit));
        let silence = self.max_silence.filter(|_| !may_be_silent);
        let silence = silence.map(|limit| alarm(self.silent_since, AlarmKind::Silence, limit));
        run.into_iter().chain(silence).min_by_key(|alarm| alarm.at)
    }
}

impl Alarm {
    /// Waits for it; for ever, if there is none.
    pub async fn wait(alarm: Option<Self>) -> Self {
        match alarm {
            Some(alarm) => {
                sleep_until(alarm.at).await;
                alarm
            }
            None => std::future::pending().await,
        }
    }

    /// The error that is told.
    pub fn error(self) -> String {
        let limit = self.limit.as_millis();
        match self.kind {
            AlarmKind::Silence => {
                format!("The agent printed nothing for {limit} ms (maxSilenceMs) and was stopped")
            }
            AlarmKind::Run => {
                format!("The agent ran for more than {limit} ms (maxRunMs) and was stopped")
            }
        }
    }
}
