//! The session files. All but a user's message are read and written on a disk thread.

use super::{Result, internal, process_end::watch_signals, settings::store_dir};
use crate::{
    clock,
    disk::{Turn, disk},
    dispatch::runs_changed,
    engine::{self, UserMessage},
    error::Error,
    leftovers,
    runtime::runtime,
    session_id::SessionId,
    settings,
    store::{Addition, Attempts, Store},
};
use napi::bindgen_prelude::{Env, Object};
use napi_derive::napi;
use std::sync::Arc;

/// Writes a user's message, unless one with this id is there. `line` is its JSON up to the timestamp,
/// without the closing brace.
#[napi(catch_unwind)]
pub fn persist_user_message(
    env: &Env,
    session_id: String,
    id: String,
    line: String,
    default_store_dir: String,
) -> Result<()> {
    let session = SessionId::new(&session_id)?;
    let store = store(&default_store_dir);
    let addition = engine::add_user_message(&store, &session, &UserMessage::new(id, line))?;
    if addition == Addition::Later {
        // The end of the process is to write it, by whatever signal: this thread hears of those now.
        watch_signals(env);
        runs_changed();
    }
    Ok(())
}

/// The store in force.
fn store(default_store_dir: &str) -> Arc<Store> {
    let store = Store::at(&store_dir(&settings::current(), default_store_dir));
    leftovers::end(&store);
    store
}

/// What a call to the store has come to: a value, or an error to be thrown.
#[napi(object)]
pub struct StoreAnswer {
    /// JSON; none where there is no value.
    pub json: Option<String>,
    /// Of the error.
    pub code: Option<String>,
    /// Of the error.
    pub message: Option<String>,
}

impl From<crate::error::Result<Option<String>>> for StoreAnswer {
    fn from(result: crate::error::Result<Option<String>>) -> Self {
        match result {
            Ok(json) => Self { json, code: None, message: None },
            Err(error) => {
                let (code, message) = (error.code().to_owned(), error.to_string());
                Self { json: None, code: Some(code), message: Some(message) }
            }
        }
    }
}

/// What makes the value of a promise, on the JavaScript thread.
type Answer = Box<dyn FnOnce(Env) -> napi::Result<StoreAnswer>>;

/// Does `work` on a disk thread. The promise is always fulfilled; see [`StoreAnswer`].
fn in_store<'env>(
    env: &'env Env,
    default_store_dir: &str,
    session: Option<&SessionId>,
    work: impl FnMut(&Store, &mut Attempts) -> crate::error::Result<Turn<Option<String>>>
    + Send
    + 'static,
) -> Result<Object<'env>> {
    // First: a promise must not be left unanswered.
    let disk = disk()?;
    let store = store(default_store_dir);
    let (deferred, promise) = env.create_deferred::<_, Answer>().map_err(internal)?;
    store.call_then(disk, session, work, move |outcome| {
        let answer = StoreAnswer::from(outcome);
        deferred.resolve(Box::new(move |_| Ok(answer)));
    });
    Ok(promise)
}

/// As [`in_store`], with one session.
fn in_session<'env>(
    env: &'env Env,
    session_id: &str,
    default_store_dir: &str,
    mut work: impl FnMut(
        &Store,
        &mut Attempts,
        &SessionId,
    ) -> crate::error::Result<Turn<Option<String>>>
    + Send
    + 'static,
) -> Result<Object<'env>> {
    let session = SessionId::new(session_id)?;
    let of = session.clone();
    let work = move |store: &Store, attempts: &mut Attempts| work(store, attempts, &session);
    in_store(env, default_store_dir, Some(&of), work)
}

/// The most UTF-16 units that a string of V8 has.
const LONGEST_STRING: usize = (1 << 29) - 24;

/// Whether a text has no more than `most` UTF-16 units.
fn is_within(text: &str, most: usize) -> bool {
    // A unit has from one byte to three.
    text.len() <= most
        || text.len().div_ceil(3) <= most
            && text.chars().map(char::len_utf16).sum::<usize>() <= most
}

/// The session's messages, as a JSON array.
#[napi(ts_return_type = "Promise<StoreAnswer>", catch_unwind)]
pub fn read_messages(
    env: &Env,
    session_id: String,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, |store, attempts, session| {
        let json = match store.read_messages(attempts, session)? {
            Turn::Done(json) => json,
            Turn::Again(after) => return Ok(Turn::Again(after)),
        };
        let json = String::from_utf8_lossy(&json);
        if !is_within(&json, LONGEST_STRING) {
            return Err(Error::too_large(store.session_path(session), LONGEST_STRING));
        }
        Ok(Turn::Done(Some(json.into_owned())))
    })
}

/// Inserts or replaces messages; `ids` and `lines` (their JSON) belong together.
#[napi(ts_return_type = "Promise<StoreAnswer>", catch_unwind)]
pub fn upsert_messages(
    env: &Env,
    session_id: String,
    ids: Vec<String>,
    lines: Vec<String>,
    title: Option<String>,
    default_store_dir: String,
) -> Result<Object<'_>> {
    let messages: Vec<_> = ids.into_iter().zip(lines).collect();
    in_session(env, &session_id, &default_store_dir, move |store, attempts, session| {
        let (title, now) = (title.as_deref(), clock::now_ms());
        let step = store.upsert_messages(attempts, session, &messages, title, now)?;
        Ok(step.map(|()| None))
    })
}

/// The index, newest first, as a JSON array.
#[napi(ts_return_type = "Promise<StoreAnswer>", catch_unwind)]
pub fn list_sessions(env: &Env, default_store_dir: String) -> Result<Object<'_>> {
    in_store(env, &default_store_dir, None, |store: &Store, attempts: &mut Attempts| {
        Ok(store.list_sessions(attempts)?.map(Some))
    })
}

/// Adds a session to the index; its entry as JSON.
#[napi(ts_return_type = "Promise<StoreAnswer>", catch_unwind)]
pub fn create_session(
    env: &Env,
    session_id: String,
    title: String,
    file_path: Option<String>,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, move |store, attempts, session| {
        let (path, now) = (file_path.as_deref(), clock::now_ms());
        Ok(store.create_session(attempts, session, &title, path, now)?.map(Some))
    })
}

/// Ends a session's run and removes its entry in the index and its file; whether there was one, as JSON.
#[napi(ts_return_type = "Promise<StoreAnswer>", catch_unwind)]
pub fn delete_session(
    env: &Env,
    session_id: String,
    default_store_dir: String,
) -> Result<Object<'_>> {
    let session = SessionId::new(&session_id)?;
    let (disk, runtime) = (disk()?, runtime()?);
    let store = store(&default_store_dir);
    let (deferred, promise) = env.create_deferred::<_, Answer>().map_err(internal)?;
    runtime.spawn(async move {
        let deleted = engine::delete_session(disk, store, session).await;
        let answer = StoreAnswer::from(deleted.map(|was_there| Some(was_there.to_string())));
        deferred.resolve(Box::new(move |_| Ok(answer)));
    });
    Ok(promise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_measured_as_javascript_measures_it() {
        for text in ["", "a", "abc", "é", "日本", "🙂", "a🙂é日"] {
            let units = text.encode_utf16().count();
            for most in 0..12 {
                assert_eq!(is_within(text, most), units <= most, "{text} within {most}");
            }
        }
    }
}
