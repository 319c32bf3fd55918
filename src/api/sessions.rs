//! The session files. All but a user's message are read and written on a disk thread.

use super::{Result, internal, settings::store_dir};
use crate::{
    clock,
    diagnostics::{self, Warning},
    engine, leftovers,
    session_id::SessionId,
    settings,
    store::Store,
};
use napi::bindgen_prelude::{Env, Object};
use napi_derive::napi;
use std::sync::Arc;

/// Writes a user's message; false when one with this id is there. `line` is its JSON up to the
/// timestamp, without the closing brace.
#[napi]
pub fn persist_user_message(
    session_id: String,
    id: String,
    line: String,
    default_store_dir: String,
) -> Result<bool> {
    let session = SessionId::new(&session_id)?;
    let store = store(&default_store_dir);
    let now = clock::now_ms();
    let line = format!("{line},\"timestamp\":\"{}\"}}", clock::iso(now));
    let is_new = store.add_message(&session, &id, line.as_bytes(), now)?;
    if is_new {
        crate::runtime::runtime()?.spawn_blocking(move || {
            if let Err(error) = store.sync(&session) {
                diagnostics::warn(&Warning {
                    code: error.code(),
                    message: error.to_string(),
                    session: Some(session),
                });
            }
        });
    }
    Ok(is_new)
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
    work: impl FnOnce(&Store) -> crate::error::Result<Option<String>> + Send + 'static,
) -> Result<Object<'env>> {
    let store = store(default_store_dir);
    let (deferred, promise) = env.create_deferred::<_, Answer>().map_err(internal)?;
    crate::runtime::runtime()?.spawn_blocking(move || {
        let answer = StoreAnswer::from(work(&store));
        deferred.resolve(Box::new(move |_| Ok(answer)));
    });
    Ok(promise)
}

/// As [`in_store`], with one session.
fn in_session<'env>(
    env: &'env Env,
    session_id: &str,
    default_store_dir: &str,
    work: impl FnOnce(&Store, &SessionId) -> crate::error::Result<Option<String>> + Send + 'static,
) -> Result<Object<'env>> {
    let session = SessionId::new(session_id)?;
    in_store(env, default_store_dir, move |store| work(store, &session))
}

/// The session's messages, as a JSON array.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn read_messages(
    env: &Env,
    session_id: String,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, |store, session| {
        let json = store.read_messages(session)?;
        Ok(Some(String::from_utf8_lossy(&json).into_owned()))
    })
}

/// Inserts or replaces messages; `ids` and `lines` (their JSON) belong together.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn upsert_messages(
    env: &Env,
    session_id: String,
    ids: Vec<String>,
    lines: Vec<String>,
    title: Option<String>,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, move |store, session| {
        let messages: Vec<_> = ids.into_iter().zip(lines).collect();
        store.upsert_messages(session, &messages, title.as_deref(), clock::now_ms())?;
        Ok(None)
    })
}

/// The index, newest first, as a JSON array.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn list_sessions(env: &Env, default_store_dir: String) -> Result<Object<'_>> {
    in_store(env, &default_store_dir, |store| store.list_sessions().map(Some))
}

/// Adds a session to the index; its entry as JSON.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn create_session(
    env: &Env,
    session_id: String,
    title: String,
    file_path: Option<String>,
    default_store_dir: String,
) -> Result<Object<'_>> {
    in_session(env, &session_id, &default_store_dir, move |store, session| {
        store.create_session(session, &title, file_path.as_deref(), clock::now_ms()).map(Some)
    })
}

/// Ends a session's run and removes its entry in the index and its file; whether there was one, as JSON.
#[napi(ts_return_type = "Promise<StoreAnswer>")]
pub fn delete_session(
    env: &Env,
    session_id: String,
    default_store_dir: String,
) -> Result<Object<'_>> {
    let session = SessionId::new(&session_id)?;
    let store = store(&default_store_dir);
    let (deferred, promise) = env.create_deferred::<_, Answer>().map_err(internal)?;
    crate::runtime::runtime()?.spawn(async move {
        let deleted = engine::delete_session(store, session).await;
        let answer = StoreAnswer::from(deleted.map(|was_there| Some(was_there.to_string())));
        deferred.resolve(Box::new(move |_| Ok(answer)));
    });
    Ok(promise)
}
