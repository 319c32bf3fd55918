//! Chunks that agents and apps put into the stream themselves: data, files, sources and metadata.
//!
//! A chunk is checked against what the readers of `ai` 5, 6 and 7 all take, because one that they refuse
//! would end their stream with an error. Pure.

use super::MAX_EVENT_BYTES;
use crate::json::{Document, JsonStr, JsonValue, NodeId, RawValue, Value};

/// A chunk that readers take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    json: JsonValue,
    kept: Kept,
}

/// What of a chunk belongs to the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: it is transient.
    Nothing,
    /// A part at its end.
    Part(JsonValue),
    /// A data part, which takes the place of an earlier one of the same type and id.
    Data {
        /// The type and the id, of a part that has one.
        key: Option<Box<str>>,
        /// The part.
        part: JsonValue,
    },
    /// Members of its metadata.
    Metadata(JsonValue),
}

/// The kinds of chunks, for messages.
const KINDS: &str = "\"data-…\", \"file\", \"source-url\" or \"message-metadata\"";

impl Chunk {
    /// Reads a chunk.
    ///
    /// # Errors
    /// What is wrong with it, beginning with the member's name.
    pub fn read(value: RawValue<'_>) -> Result<Self, String> {
        let chunk = Self::read_any(value)?;
        if chunk.json.text().len() > MAX_EVENT_BYTES {
            return Err(format!("is longer than {MAX_EVENT_BYTES} bytes"));
        }
        Ok(chunk)
    }

    fn read_any(value: RawValue<'_>) -> Result<Self, String> {
        let mut document = Document::from_raw(value);
        let chunk = Members(document.root());
        if !chunk.0.is_record() {
            return Err("must be an object".to_owned());
        }
        let name = chunk.text("type")?;
        match name.as_str() {
            name if name.starts_with("data-") => {
                chunk.allow(&["type", "id", "data", "transient"])?;
                let data = chunk.0.get("data").ok_or("data: is missing")?;
                let (id, is_transient) = (chunk.optional_text("id")?, chunk.flag("transient")?);
                let key = id.map(|id| format!("{name}\n{}", id.as_str()).into());
                let mut members = vec![("type", chunk.id("type")), ("id", chunk.id("id"))];
                members.push(("data", Some(data.id())));
                let json = JsonValue::from(document.root());
                let part = object_of(&mut document, members);
                let kept = if is_transient { Kept::Nothing } else { Kept::Data { key, part } };
                Ok(Self { json, kept })
            }
            "file" => {
                chunk.allow(&["type", "url", "mediaType", "providerMetadata"])?;
                chunk.text("url")?;
                chunk.text("mediaType")?;
                chunk.optional_objects("providerMetadata")?;
                Ok(Self::part(document.root().into()))
            }
            "source-url" => {
                chunk.allow(&["type", "sourceId", "url", "title", "providerMetadata"])?;
                chunk.text("sourceId")?;
                chunk.text("url")?;
                chunk.optional_text("title")?;
                chunk.optional_objects("providerMetadata")?;
                Ok(Self::part(document.root().into()))
            }
            "message-metadata" => {
                chunk.allow(&["type", "messageMetadata"])?;
                let metadata = chunk.0.get("messageMetadata");
                let metadata = metadata.filter(|metadata| metadata.is_record());
                let metadata = metadata.ok_or("messageMetadata: must be an object")?;
                let kept = Kept::Metadata(metadata.into());
                Ok(Self { json: document.root().into(), kept })
            }
            name => Err(format!("type: {name:?} is none that is passed on; there are {KINDS}")),
        }
    }

    /// A file.
    pub fn file(media_type: &JsonStr, url: &JsonStr) -> Self {
        let (media_type, url) = (JsonValue::string(media_type), JsonValue::string(url));
        let (media_type, url) = (media_type.text(), url.text());
        let json = format!(r#"{{"type":"file","mediaType":{media_type},"url":{url}}}"#);
        Self::part(JsonValue::canonical(json))
    }

    /// The chunk as `JSON.stringify` prints it.
    pub fn json(&self) -> &JsonValue {
        &self.json
    }

    /// What of it belongs to the message.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    fn part(json: JsonValue) -> Self {
        Self { kept: Kept::Part(json.clone()), json }
    }
}

/// A chunk's members, to be checked.
#[derive(Clone, Copy)]
struct Members<'d>(Value<'d>);

impl<'d> Members<'d> {
    fn id(self, name: &str) -> Option<NodeId> {
        self.0.get(name).map(Value::id)
    }

    fn allow(self, names: &[&str]) -> Result<(), String> {
        let unknown = self.0.members().find(|(key, _)| !names.contains(&key.as_str()));
        match unknown {
            Some((key, _)) => Err(format!("{}: is unknown; there are {names:?}", key.as_str())),
            None => Ok(()),
        }
    }

    fn text(self, name: &str) -> Result<&'d JsonStr, String> {
        self.optional_text(name)?.ok_or_else(|| format!("{name}: is missing"))
    }

    fn optional_text(self, name: &str) -> Result<Option<&'d JsonStr>, String> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| format!("{name}: must be a string"))
    }

    fn flag(self, name: &str) -> Result<bool, String> {
        match self.0.get(name).map(|value| value.stringify()) {
            None => Ok(false),
            Some(flag) if flag == "true" => Ok(true),
            Some(flag) if flag == "false" => Ok(false),
            Some(_) => Err(format!("{name}: must be true or false")),
        }
    }

    /// Provider metadata: an object whose members are objects.
    fn optional_objects(self, name: &str) -> Result<(), String> {
        let Some(value) = self.0.get(name) else { return Ok(()) };
        let are_objects = value.is_record() && value.members().all(|(_, of)| of.is_record());
        are_objects.then_some(()).ok_or_else(|| format!("{name}: must be an object of objects"))
    }
}

/// An object of the members that are there.
fn object_of(document: &mut Document, members: Vec<(&str, Option<NodeId>)>) -> JsonValue {
    let members = members.into_iter().filter_map(|(key, id)| Some((JsonStr::escape(key), id?)));
    let members: Vec<_> = members.collect();
    let object = document.object(members.iter().map(|(key, id)| (&**key, *id)));
    document.get(object).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Cursor;

    fn read(json: &str) -> Result<Chunk, String> {
        Chunk::read(Cursor::new(json).value().unwrap())
    }

    #[test]
    fn chunks_that_all_readers_take_are_passed_on_as_they_are() {
        for json in [
            r#"{"type":"data-x","data":null}"#,
            r#"{"type":"data-x","id":"a","data":{"n":[1]},"transient":true}"#,
            r#"{"type":"file","url":"data:,","mediaType":"text/plain"}"#,
            r#"{"type":"source-url","sourceId":"s","url":"https://x","title":"T","providerMetadata":{"p":{"k":1}}}"#,
            r#"{"type":"message-metadata","messageMetadata":{"model":"m"}}"#,
        ] {
            assert_eq!(read(json).unwrap().json().text(), json);
        }
    }

    #[test]
    fn what_a_reader_would_refuse_is_named() {
        for (json, wrong) in [
            ("5", "must be an object"),
            ("[]", "must be an object"),
            ("{}", "type: is missing"),
            (r#"{"type":"text-delta"}"#, "type: \"text-delta\" is none"),
            (r#"{"type":"data-x"}"#, "data: is missing"),
            (r#"{"type":"data-x","data":1,"id":5}"#, "id: must be a string"),
            (r#"{"type":"data-x","data":1,"transient":"yes"}"#, "transient: must be"),
            (r#"{"type":"data-x","data":1,"other":2}"#, "other: is unknown"),
            (r#"{"type":"file","url":"u"}"#, "mediaType: is missing"),
            (r#"{"type":"file","url":1,"mediaType":"m"}"#, "url: must be a string"),
            (r#"{"type":"source-url","url":"u"}"#, "sourceId: is missing"),
            (r#"{"type":"message-metadata","messageMetadata":[1]}"#, "messageMetadata: must be"),
            (
                r#"{"type":"file","url":"u","mediaType":"m","providerMetadata":{"p":1}}"#,
                "providerMetadata: must be",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.starts_with(wrong), "{json}: {error}");
        }
    }

    #[test]
    fn transient_data_is_not_kept_and_the_mark_is_no_part_of_the_message() {
        let transient = read(r#"{"type":"data-x","data":1,"transient":true}"#).unwrap();
        assert_eq!(*transient.kept(), Kept::Nothing);
        let lasting = read(r#"{"data":1,"transient":false,"id":"i","type":"data-x"}"#).unwrap();
        let Kept::Data { key, part } = lasting.kept() else { panic!("{lasting:?}") };
        assert_eq!(part.text(), r#"{"type":"data-x","id":"i","data":1}"#);
        assert!(key.is_some());
    }

    #[test]
    fn a_picture_is_a_file() {
        let file = Chunk::file(&JsonStr::escape("image/png"), &JsonStr::escape("data:\"1"));
        assert_eq!(
            file.json().text(),
            r#"{"type":"file","mediaType":"image/png","url":"data:\"1"}"#
        );
        assert_eq!(*file.kept(), Kept::Part(file.json().clone()));
    }
}
