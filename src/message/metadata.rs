//! Merging of a message's metadata with what agents and apps add.

use crate::json::{Document, JsonStr, JsonValue, NodeId};

/// Objects are merged so deep; what lies deeper is replaced.
const DEEPEST: usize = 64;

/// Keys that the AI SDK's reader leaves out where it merges.
const LEFT_OUT: [&str; 3] = ["__proto__", "constructor", "prototype"];

/// Both objects in one, as the AI SDK's reader merges them: of a member that both have, `added` has the
/// value, unless both values are objects.
pub(super) fn merged(base: &JsonValue, added: &JsonValue) -> JsonValue {
    let both = format!("[{},{}]", base.text(), added.text());
    let Ok(mut document) = Document::parse(&both) else { return added.clone() };
    let ids: Vec<_> = document.root().items().map(|item| item.id()).collect();
    let [base, added] = ids[..] else { return added.clone() };
    let merged = merge(&mut document, base, added, DEEPEST);
    document.get(merged).into()
}

fn merge(document: &mut Document, base: NodeId, added: NodeId, depth: usize) -> NodeId {
    let members = |document: &Document, id| {
        let members = document.get(id).members();
        members.map(|(key, value)| (key.to_owned(), value.id())).collect::<Vec<_>>()
    };
    let mut all = members(document, base);
    for (key, value) in members(document, added) {
        if LEFT_OUT.contains(&key.as_str()) {
            continue;
        }
        let Some(known) = all.iter().position(|(known, _)| **known == *key) else {
            all.push((key, value));
            continue;
        };
        let is_object = |id| document.get(id).is_record();
        let are_objects = is_object(all[known].1) && is_object(value) && depth > 0;
        all[known].1 = match are_objects {
            true => merge(document, all[known].1, value, depth - 1),
            false => value,
        };
    }
    document.object(all.iter().map(|(key, id)| -> (&JsonStr, NodeId) { (key, *id) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> JsonValue {
        Document::parse(json).unwrap().root().into()
    }

    #[test]
    fn objects_are_merged_as_the_ai_sdk_merges_them() {
        for (base, added, both) in [
            ("{}", "{}", "{}"),
            (r#"{"a":1,"b":2}"#, r#"{"b":3,"c":4}"#, r#"{"a":1,"b":3,"c":4}"#),
            (r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#, r#"{"a":{"x":1,"y":2}}"#),
            (r#"{"a":{"x":1}}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, r#"{"a":[3]}"#),
            (r#"{"a":null}"#, r#"{"a":{"__proto__":{"x":1}}}"#, r#"{"a":{"__proto__":{"x":1}}}"#),
            (r#"{"a":1}"#, r#"{"constructor":{"x":1}}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(merged(&value(base), &value(added)).text(), both, "{base} {added}");
        }
        let deep = |member: &str| {
            let (open, close) = (r#"{"k":"#.repeat(10_000), "}".repeat(10_000));
            value(&format!("{open}{{\"{member}\":1}}{close}"))
        };
        assert_eq!(merged(&deep("a"), &deep("b")), deep("b"));
    }
}
