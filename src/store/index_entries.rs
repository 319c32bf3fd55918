//! The index's entries, found and made as the module does it.

use crate::{
    json::{Document, JsonStr, NodeId, Value},
    session_id::SessionId,
};
use std::iter;

pub(super) fn is_entry(entry: Value<'_>, session: &SessionId) -> bool {
    let id = entry.get("id").and_then(Value::as_str);
    id.is_some_and(|id| id.as_str() == JsonStr::escape(session.as_str()).as_str())
}

/// `index.find((s) => s.id === session)`, which throws at a `null`.
pub(super) fn find(index: Value<'_>, session: &SessionId) -> Option<NodeId> {
    let found = index.items().find(|entry| entry.is_null() || is_entry(*entry, session))?;
    (!found.is_null()).then(|| found.id())
}

/// Puts a new entry at the front.
pub(super) fn put_first(
    document: &mut Document,
    session: &SessionId,
    (title, now_ms, file_path): &(String, u64, Option<String>),
) -> NodeId {
    let entry = document.object([]);
    document.set(entry, "id", session.as_str());
    document.set(entry, "title", title.as_str());
    document.set(entry, "createdAt", *now_ms as f64);
    document.set(entry, "updatedAt", *now_ms as f64);
    document.set(entry, "messageCount", 0.0);
    if let Some(path) = file_path {
        document.set(entry, "filePath", path.as_str());
    }
    let others = document.root().items().map(Value::id);
    let all = iter::once(entry).chain(others).collect();
    document.set_items(all);
    entry
}
