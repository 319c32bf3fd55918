//! What is open at every place of a run: its parts, and its tool calls.
//!
//! It is noted while the events are written, so that a reader that begins somewhere in the run looks
//! at a few hundred events at most and parses none of them, however long the run is.

use super::{Kind, OpenParts};
use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

/// How many events lie between two points.
pub(super) const SPACING: u64 = 256;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub block: usize,
    /// In the block.
    pub offset: usize,
}

/// The parts just before an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Those that were started last.
    pub ids: OpenParts,
    /// The events with which those that are open began.
    pub open: Open,
}

/// The numbers of the events with which the parts began that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// The text part's.
    pub text: Option<u64>,
    /// The reasoning part's.
    pub reasoning: Option<u64>,
}

impl Open {
    /// Event `number` comes.
    pub(super) fn pass(&mut self, number: u64, kind: Kind) {
        match kind {
            Kind::TextStart => self.text = Some(number),
            Kind::TextEnd => self.text = None,
            Kind::ReasoningStart => self.reasoning = Some(number),
            Kind::ReasoningEnd => self.reasoning = None,
            Kind::TextDelta | Kind::ReasoningDelta | Kind::Json | Kind::Extra | Kind::Orphan => {}
        }
    }
}

/// A place every [`SPACING`] events.
#[derive(Debug)]
pub(super) struct Point {
    pub place: Place,
    pub parts: Parts,
}

/// An event that says with what a tool is called.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Its number.
    pub number: u64,
    pub(super) place: Place,
    /// The number of the next such event of the same call.
    next: u64,
}

impl Input {
    /// Whether it is the last one of its call before event number `event`.
    pub fn is_last_before(&self, event: u64) -> bool {
        self.next >= event
    }
}

/// What new events do to the calls. A call is known by the number of its first event.
#[derive(Debug)]
pub(super) enum Change {
    /// `before` is the place of the call's last input among all inputs.
    Input {
        id: Arc<str>,
        first: u64,
        number: u64,
        offset: usize,
        before: Option<usize>,
    },
    Result {
        first: u64,
        number: u64,
    },
}

/// What is kept of a change, in bytes, on average: a call has three, and one id.
pub(super) const CHANGE_BYTES: usize =
    size_of::<Input>() + size_of::<Known>() + size_of::<(u64, u64)>();

/// In the place of an event's number where there is no event.
const NONE: u64 = u64::MAX;

/// The calls as their writer knows them.
#[derive(Debug, Default)]
pub(super) struct KnownCalls {
    /// By id in JSON form.
    by_id: HashMap<Arc<str>, Known>,
    inputs: usize,
}

#[derive(Debug)]
pub(super) struct Known {
    first: u64,
    last_input: usize,
}

impl KnownCalls {
    /// Event `number`, whose entry will begin at `offset`, is an input of a call.
    pub fn input(&mut self, id: &str, number: u64, offset: usize) -> Change {
        let place = self.inputs;
        self.inputs += 1;
        if let Some((id, known)) = self.by_id.get_key_value(id) {
            let (id, first, before) = (Arc::clone(id), known.first, Some(known.last_input));
            if let Some(known) = self.by_id.get_mut(&id) {
                known.last_input = place;
            }
            return Change::Input { id, first, number, offset, before };
        }
        let id: Arc<str> = id.into();
        self.by_id.insert(Arc::clone(&id), Known { first: number, last_input: place });
        Change::Input { id, first: number, number, offset, before: None }
    }

    /// Event `number` is the result of a call; none when there was no such call.
    pub fn result(&self, id: &str, number: u64) -> Option<Change> {
        self.by_id.get(id).map(|known| Change::Result { first: known.first, number })
    }
}

/// The calls of what is in the log.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// In order.
    inputs: Vec<Input>,
    /// Those without a result: their ids in JSON form, by the number of their first event.
    open: BTreeMap<u64, Arc<str>>,
    /// From just before which event on, which is the first event of the first open call. In order.
    first_open: Vec<(u64, u64)>,
}

impl Calls {
    /// Takes what was appended behind `base`.
    pub fn apply(&mut self, change: Change, base: Place) {
        let number = match change {
            Change::Input { id, first, number, offset, before } => {
                if let Some(before) = before.and_then(|before| self.inputs.get_mut(before)) {
                    before.next = number;
                }
                let place = Place { offset: base.offset + offset, ..base };
                self.inputs.push(Input { number, place, next: NONE });
                self.open.insert(first, id);
                number
            }
            Change::Result { first, number } => {
                self.open.remove(&first);
                number
            }
        };
        let first = self.open.keys().next().copied().unwrap_or(NONE);
        if self.first_open.last().map_or(NONE, |(_, first)| *first) != first {
            self.first_open.push((number + 1, first));
        }
    }

    /// The first event of the first call that is open just before `event`.
    pub fn first_open_at(&self, event: u64) -> Option<u64> {
        let behind = self.first_open.partition_point(|(from, _)| *from <= event);
        let first = behind.checked_sub(1).map(|last| self.first_open[last].1);
        first.filter(|&first| first != NONE)
    }

    pub fn input(&self, index: usize) -> Option<Input> {
        self.inputs.get(index).copied()
    }

    /// The ids of those without a result, in order.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        self.open.values().map(|id| &**id)
    }
}
