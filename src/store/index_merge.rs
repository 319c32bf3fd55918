//! Two versions of the index made one: by session and by field, with the version that both came from.
//!
//! No entry goes that either side has, unless one side has removed it and its session has no file any
//! more. Pure but for the question whether a session has a file.

use crate::json::{Document, Value};
use std::collections::{HashMap, HashSet};

/// Entries by their ids, in JSON.
type ById<'d> = HashMap<&'d str, Value<'d>>;

/// `theirs` and `ours` in one, in their order, with the entries that only `ours` has in front. `base`
/// is what they have in common.
pub(super) fn merge(
    base: Option<&Document>,
    theirs: &Document,
    ours: &Document,
    has_file: impl Fn(&str) -> bool,
) -> Option<Document> {
    let base = base.map(by_id).unwrap_or_default();
    let our_entries = by_id(ours);
    let their_ids: HashSet<&str> = theirs.root().items().filter_map(id).collect();
    let is_gone = |id: &str| base.contains_key(id) && !has_file(&plain(id));
    let mut texts = Vec::new();
    for entry in ours.root().items() {
        if id(entry).is_some_and(|id| !their_ids.contains(id) && !is_gone(id)) {
            texts.push(entry.stringify());
        }
    }
    for entry in theirs.root().items() {
        let Some(id) = id(entry) else {
            texts.push(entry.stringify());
            continue;
        };
        match our_entries.get(id) {
            Some(our_entry) => {
                texts.push(merge_fields(base.get(id).copied(), entry, *our_entry));
            }
            None if is_gone(id) => {}
            None => texts.push(entry.stringify()),
        }
    }
    Document::parse(&format!("[{}]", texts.join(","))).ok()
}

/// Their fields, but ours where they have left it as it was. What both have added to the count of
/// messages is added up, and of two times the later one counts.
fn merge_fields(base: Option<Value<'_>>, theirs: Value<'_>, ours: Value<'_>) -> String {
    let text = |entry: Option<Value<'_>>, key: &str| {
        let found = entry?.members().find(|(name, _)| name.as_str() == key)?;
        Some(found.1.stringify())
    };
    let mut fields = Vec::new();
    for (name, value) in theirs.members() {
        let key = name.as_str();
        let value = value.stringify();
        let is_theirs = text(base, key).as_ref() != Some(&value);
        let number = |entry: Option<Value<'_>>| entry?.get(key)?.as_f64();
        let value = match (number(base), number(Some(theirs)), number(Some(ours))) {
            (Some(base), Some(theirs), Some(ours)) if key == "messageCount" => {
                (theirs + ours - base).to_string()
            }
            (_, Some(theirs), Some(ours)) if key == "updatedAt" => theirs.max(ours).to_string(),
            _ if is_theirs => value,
            _ => text(Some(ours), key).unwrap_or(value),
        };
        fields.push(format!("\"{key}\":{value}"));
    }
    for (name, value) in ours.members() {
        let key = name.as_str();
        if text(Some(theirs), key).is_none() && text(base, key).is_none() {
            fields.push(format!("\"{key}\":{}", value.stringify()));
        }
    }
    format!("{{{}}}", fields.join(","))
}

fn by_id(document: &Document) -> ById<'_> {
    document.root().items().filter_map(|entry| Some((id(entry)?, entry))).collect()
}

fn id(entry: Value<'_>) -> Option<&str> {
    entry.get("id").and_then(Value::as_str).map(|id| id.as_str())
}

/// The id of which this is the JSON, as far as a file can have it in its name.
fn plain(json: &str) -> String {
    if json.contains('\\') { String::new() } else { json.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, theirs: &str, ours: &str, files: &[&str]) -> String {
        let [base, theirs, ours] = [base, theirs, ours].map(|text| Document::parse(text).unwrap());
        merge(Some(&base), &theirs, &ours, |id| files.contains(&id)).unwrap().root().stringify()
    }

    #[test]
    fn what_each_side_has_added_is_kept() {
        let base = r#"[{"id":"a"}]"#;
        let theirs = r#"[{"id":"t"},{"id":"a"}]"#;
        let ours = r#"[{"id":"o"},{"id":"a"}]"#;
        assert_eq!(merged(base, theirs, ours, &[]), r#"[{"id":"o"},{"id":"t"},{"id":"a"}]"#);
    }

    #[test]
    fn what_one_side_has_removed_goes_if_it_has_no_file() {
        let base = r#"[{"id":"a"},{"id":"b"}]"#;
        assert_eq!(merged(base, r#"[{"id":"a"}]"#, base, &["a"]), r#"[{"id":"a"}]"#);
        assert_eq!(merged(base, base, r#"[{"id":"a"}]"#, &["a"]), r#"[{"id":"a"}]"#);
        let kept = r#"[{"id":"b"},{"id":"a"}]"#;
        assert_eq!(merged(base, r#"[{"id":"a"}]"#, base, &["a", "b"]), kept);
    }

    #[test]
    fn of_each_field_the_side_counts_that_has_changed_it() {
        let base = r#"[{"id":"a","title":"x","n":1,"gone":0}]"#;
        let theirs = r#"[{"id":"a","title":"theirs","n":1,"own":[1]}]"#;
        let ours = r#"[{"id":"a","title":"ours","n":2,"gone":0,"new":{}}]"#;
        let both = r#"[{"id":"a","title":"theirs","n":2,"own":[1],"new":{}}]"#;
        assert_eq!(merged(base, theirs, ours, &[]), both);
    }

    #[test]
    fn counts_are_added_up_and_the_later_time_counts() {
        let base = r#"[{"id":"a","messageCount":5,"updatedAt":10}]"#;
        let theirs = r#"[{"id":"a","messageCount":7,"updatedAt":20}]"#;
        let ours = r#"[{"id":"a","messageCount":6,"updatedAt":15}]"#;
        let both = r#"[{"id":"a","messageCount":8,"updatedAt":20}]"#;
        assert_eq!(merged(base, theirs, ours, &[]), both);
    }

    #[test]
    fn entries_without_an_id_stay() {
        assert_eq!(merged("[]", r#"[null,5,{"id":1}]"#, "[]", &[]), r#"[null,5,{"id":1}]"#);
    }
}
