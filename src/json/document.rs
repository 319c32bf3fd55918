//! Parsed values with JavaScript's object semantics, and how they print.
//!
//! The nodes of a [`Document`] lie in one arena and name each other by index, so that a value
//! nested a million levels deep is read, printed and dropped without recursion. There are no
//! cycles: an object is made of nodes that are there already, and only values without parts are set
//! into one later.

use super::{
    number,
    scan::{self, Cursor, Invalid, Literal, Nesting, RawStr, RawValue},
    string::{JsonStr, JsonString},
};

/// The deepest value that is printed with indentation, the size of which grows with the square of
/// the depth. (`JSON.stringify` throws somewhat deeper, when its stack is full.)
const MAX_PRETTY_DEPTH: usize = 1_000;

/// A value and what it is made of. It can be edited.
#[derive(Debug)]
pub struct Document {
    nodes: Vec<Node>,
    root: NodeId,
}

/// A value's place in its [`Document`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(usize);

#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(f64),
    String(JsonString),
    Array(Vec<NodeId>),
    /// In the order in which JavaScript lists them; no key twice.
    Object(Vec<Member>),
}

#[derive(Debug)]
struct Member {
    key: JsonString,
    value: NodeId,
}

/// A value without parts.
#[derive(Clone, Debug)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; NaN prints as `null`.
    Number(f64),
    /// A string.
    String(JsonString),
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<&JsonStr> for Scalar {
    fn from(text: &JsonStr) -> Self {
        Self::String(text.to_owned())
    }
}

impl Document {
    /// Reads `text` as `JSON.parse` does.
    ///
    /// # Errors
    /// When `JSON.parse` would throw.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut cursor = Cursor::new(text);
        let value = cursor.value()?;
        cursor.end()?;
        Ok(Self::from_raw(value))
    }

    /// Reads a value that a [`Cursor`] has found.
    pub fn from_raw(value: RawValue<'_>) -> Self {
        let mut builder = Builder::default();
        // Cannot fail: a `RawValue` is valid. Were it not, what was read so far would stand.
        let _ = scan::walk(value.text(), 0, &mut builder);
        let root = builder.items.pop();
        let mut document = Self { nodes: builder.nodes, root: NodeId(0) };
        document.root = root.unwrap_or_else(|| document.scalar(Scalar::Null));
        document
    }

    /// The value itself.
    pub fn root(&self) -> Value<'_> {
        self.get(self.root)
    }

    /// Makes the value an array of these items.
    pub fn set_items(&mut self, items: Vec<NodeId>) {
        self.root = self.array(items);
    }

    /// The value at `id`, which must be of this document.
    pub fn get(&self, id: NodeId) -> Value<'_> {
        Value { document: self, id }
    }

    /// Adds a value without parts. It is nowhere in the document's value yet.
    pub fn scalar(&mut self, value: impl Into<Scalar>) -> NodeId {
        let node = match value.into() {
            Scalar::Null => Node::Null,
            Scalar::Bool(value) => Node::Bool(value),
            Scalar::Number(value) => Node::Number(value),
            Scalar::String(text) => Node::String(text),
        };
        self.add(node)
    }

    /// Adds an array of these items. It is nowhere in the document's value yet.
    pub fn array(&mut self, items: Vec<NodeId>) -> NodeId {
        self.add(Node::Array(items))
    }

    /// Adds an object with these members. It is nowhere in the document's value yet.
    pub fn object<'k>(
        &mut self,
        members: impl IntoIterator<Item = (&'k JsonStr, NodeId)>,
    ) -> NodeId {
        let members = members.into_iter().map(|(key, value)| Member { key: key.to_owned(), value });
        self.add(Node::Object(ordered(members.collect())))
    }

    /// Removes the members of all objects in it that are unwanted.
    pub fn remove_members(&mut self, is_unwanted: impl Fn(&str, Value<'_>) -> bool) {
        for index in 0..self.nodes.len() {
            let Node::Object(members) = &self.nodes[index] else { continue };
            let is_kept =
                |member: &Member| !is_unwanted(member.key.as_str(), self.get(member.value));
            let kept: Vec<_> = members.iter().map(is_kept).collect();
            let Node::Object(members) = &mut self.nodes[index] else { continue };
            let mut kept = kept.into_iter();
            members.retain(|_| kept.next().unwrap_or(true));
        }
    }

    /// `object[key] = value`: an existing key keeps its place, a new one goes where JavaScript
    /// puts it. Nothing happens when `object` is none.
    pub fn set(&mut self, object: NodeId, key: &str, value: impl Into<Scalar>) {
        let value = self.scalar(value);
        let key = JsonStr::escape(key);
        let Some(Node::Object(members)) = self.nodes.get_mut(object.0) else { return };
        match members.iter_mut().find(|member| *member.key == *key) {
            Some(member) => member.value = value,
            None => {
                members.push(Member { key: key.into_owned(), value });
                *members = ordered(std::mem::take(members));
            }
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id.0).unwrap_or(&Node::Null)
    }

    /// Prints the value at `id`; `None` when it is too deep for the style.
    fn print(&self, mut id: NodeId, style: Style) -> Option<String> {
        let mut out = String::new();
        // The containers that are open, each with the index of the part that comes next.
        let mut around: Vec<(NodeId, usize)> = Vec::new();
        loop {
            match self.node(id) {
                Node::Null => out.push_str("null"),
                Node::Bool(true) => out.push_str("true"),
                Node::Bool(false) => out.push_str("false"),
                Node::Number(value) => number::write(*value, &mut out),
                Node::String(text) => push_quoted(&mut out, text),
                Node::Array(items) if items.is_empty() => out.push_str("[]"),
                Node::Object(members) if members.is_empty() => out.push_str("{}"),
                Node::Array(_) => {
                    out.push('[');
                    around.push((id, 0));
                }
                Node::Object(_) => {
                    out.push('{');
                    around.push((id, 0));
                }
            }
            if style == Style::Pretty && around.len() > MAX_PRETTY_DEPTH {
                return None;
            }
            id = loop {
                let depth = around.len();
                let Some((container, index)) = around.last_mut() else { return Some(out) };
                let (close, next) = match self.node(*container) {
                    Node::Object(members) => {
                        ('}', members.get(*index).map(|member| (Some(&member.key), member.value)))
                    }
                    Node::Array(items) => (']', items.get(*index).map(|&item| (None, item))),
                    _ => (']', None),
                };
                if let Some((key, value)) = next {
                    if *index > 0 {
                        out.push(',');
                    }
                    *index += 1;
                    style.new_line(depth, &mut out);
                    if let Some(key) = key {
                        push_quoted(&mut out, key);
                        out.push_str(if style == Style::Pretty { ": " } else { ":" });
                    }
                    break value;
                }
                around.pop();
                style.new_line(depth - 1, &mut out);
                out.push(close);
            };
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `JSON.stringify(value)`.
    Plain,
    /// `JSON.stringify(value, null, 2)`.
    Pretty,
}

impl Style {
    fn new_line(self, depth: usize, out: &mut String) {
        if self == Self::Pretty {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    }
}

fn push_quoted(out: &mut String, text: &JsonStr) {
    out.push('"');
    out.push_str(text.as_str());
    out.push('"');
}

/// Members as an object has them that got them one after the other: of a repeated key the last
/// value at the first one's place, and array indexes first, ascending.
fn ordered(mut members: Vec<Member>) -> Vec<Member> {
    // Most objects are small and in order.
    let is_plain = |(place, member): (usize, &Member)| {
        array_index(&member.key).is_none()
            && members[..place].iter().all(|earlier| earlier.key != member.key)
    };
    if members.len() <= 16 && members.iter().enumerate().all(is_plain) {
        return members;
    }
    let mut by_key: Vec<usize> = (0..members.len()).collect();
    // Stable: equal keys stay in the order they came in.
    by_key.sort_by(|&a, &b| members[a].key.cmp(&members[b].key));
    let mut repeated = vec![false; members.len()];
    let mut start = 0;
    for end in 1..=by_key.len() {
        let first = by_key[start];
        if end < by_key.len() && members[by_key[end]].key == members[first].key {
            repeated[by_key[end]] = true;
        } else {
            members[first].value = members[by_key[end - 1]].value;
            start = end;
        }
    }
    let mut repeated = repeated.into_iter();
    members.retain(|_| !repeated.next().unwrap_or(false));
    if members.iter().any(|member| array_index(&member.key).is_some()) {
        // Stable, too, and `u32::MAX` is no array index.
        members.sort_by_key(|member| array_index(&member.key).unwrap_or(u32::MAX));
    }
    members
}

/// The array index that `key` is: a canonical number below 2^32 - 1.
fn array_index(key: &JsonStr) -> Option<u32> {
    let digits = key.as_str();
    let canonical = digits == "0"
        || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&index| canonical && index < u32::MAX)
}

/// Builds the nodes bottom-up.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    /// The values whose container is still open, or the finished value.
    items: Vec<NodeId>,
    /// The keys of those among them that are members.
    keys: Vec<JsonString>,
    /// How many `items` there were when each open container began.
    open: Vec<usize>,
}

impl Builder {
    fn add(&mut self, node: Node) {
        self.items.push(NodeId(self.nodes.len()));
        self.nodes.push(node);
    }
}

impl<'a> scan::Visitor<'a> for Builder {
    fn open(&mut self, _: Nesting) {
        self.open.push(self.items.len());
    }

    fn key(&mut self, key: RawStr<'a>) {
        self.keys.push(key.json().into_owned());
    }

    fn string(&mut self, string: RawStr<'a>) {
        self.add(Node::String(string.json().into_owned()));
    }

    fn number(&mut self, source: &'a str) {
        self.add(Node::Number(number::parse(source)));
    }

    fn literal(&mut self, literal: Literal) {
        self.add(match literal {
            Literal::Null => Node::Null,
            Literal::True => Node::Bool(true),
            Literal::False => Node::Bool(false),
        });
    }

    fn close(&mut self, nesting: Nesting) {
        let values = self.items.drain(self.open.pop().unwrap_or(0)..);
        let node = match nesting {
            Nesting::Array => Node::Array(values.collect()),
            Nesting::Object => {
                let keys = self.keys.drain(self.keys.len().saturating_sub(values.len())..);
                let members = keys.zip(values).map(|(key, value)| Member { key, value });
                Node::Object(ordered(members.collect()))
            }
        };
        self.add(node);
    }
}

/// A value in a [`Document`].
#[derive(Clone, Copy, Debug)]
pub struct Value<'d> {
    document: &'d Document,
    id: NodeId,
}

impl<'d> Value<'d> {
    /// Its place, by which the document can be edited.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// The string, if it is one.
    pub fn as_str(self) -> Option<&'d JsonStr> {
        match self.node() {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Number(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        matches!(self.node(), Node::Null)
    }

    /// Whether it is an array.
    pub fn is_array(self) -> bool {
        matches!(self.node(), Node::Array(_))
    }

    /// Whether it is an object and no array.
    pub fn is_record(self) -> bool {
        matches!(self.node(), Node::Object(_))
    }

    /// Whether it is an object or an array: JavaScript's `typeof` says "object" and it is not
    /// `null`.
    pub fn is_object(self) -> bool {
        matches!(self.node(), Node::Array(_) | Node::Object(_))
    }

    /// Whether JavaScript counts it as true.
    pub fn is_truthy(self) -> bool {
        match self.node() {
            Node::Null => false,
            Node::Bool(value) => *value,
            Node::Number(value) => *value != 0.0 && !value.is_nan(),
            Node::String(text) => !text.is_empty(),
            Node::Array(_) | Node::Object(_) => true,
        }
    }

    /// The member named `key`, if this is an object that has it.
    pub fn get(self, key: &str) -> Option<Value<'d>> {
        let key = JsonStr::escape(key);
        self.members().find(|(found, _)| **found == *key).map(|(_, value)| value)
    }

    /// The items, if this is an array; else none.
    pub fn items(self) -> impl Iterator<Item = Value<'d>> {
        let items = match self.node() {
            Node::Array(items) => items.as_slice(),
            _ => &[],
        };
        items.iter().map(move |&id| self.document.get(id))
    }

    /// The members in JavaScript's order, if this is an object; else none.
    pub fn members(self) -> impl Iterator<Item = (&'d JsonStr, Value<'d>)> {
        let members = match self.node() {
            Node::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().map(move |member| (&*member.key, self.document.get(member.value)))
    }

    /// `JSON.stringify(value)`.
    pub fn stringify(self) -> String {
        self.document.print(self.id, Style::Plain).unwrap_or_default()
    }

    /// `JSON.stringify(value, null, 2)`; `None` when the value is nested too deeply for it (more
    /// than 1,000 levels).
    pub fn stringify_pretty(self) -> Option<String> {
        self.document.print(self.id, Style::Pretty)
    }

    fn node(self) -> &'d Node {
        self.document.node(self.id)
    }
}

/// A value as the text that `JSON.stringify` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonValue(Box<str>);

impl JsonValue {
    /// `{}`.
    pub fn empty_object() -> Self {
        Self("{}".into())
    }

    /// A string.
    pub fn string(text: &JsonStr) -> Self {
        let mut quoted = String::with_capacity(text.as_str().len() + 2);
        push_quoted(&mut quoted, text);
        Self(quoted.into())
    }

    /// A value that is written here as `JSON.stringify` prints it.
    pub(crate) fn canonical(json: String) -> Self {
        Self(json.into())
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<Value<'_>> for JsonValue {
    fn from(value: Value<'_>) -> Self {
        Self(value.stringify().into())
    }
}

impl From<RawValue<'_>> for JsonValue {
    fn from(value: RawValue<'_>) -> Self {
        Document::from_raw(value).root().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stringified(text: &str) -> String {
        Document::parse(text).unwrap().root().stringify()
    }

    #[test]
    fn objects_are_ordered_as_javascript_orders_them() {
        for (source, printed) in [
            (r#"{"b":1,"10":2,"2":3,"a":4,"01":5}"#, r#"{"2":3,"10":2,"b":1,"a":4,"01":5}"#),
            (r#"{"k":1,"j":2,"k":3}"#, r#"{"k":3,"j":2}"#),
            (r#"{"k":1,"\u006b":{"k":[]},"k":null,"j":2,"j":0}"#, r#"{"k":null,"j":0}"#),
            (
                r#"{"4294967295":1,"4294967294":2,"0":3,"-1":4}"#,
                r#"{"0":3,"4294967294":2,"4294967295":1,"-1":4}"#,
            ),
            (
                r#"{"__proto__":{"a":1},"constructor":1}"#,
                r#"{"__proto__":{"a":1},"constructor":1}"#,
            ),
            (r#"{"5":1,"5":2,"3":1}"#, r#"{"3":1,"5":2}"#),
            (r#"{"+5":1,"":2,"00":4,"1":3}"#, r#"{"1":3,"+5":1,"":2,"00":4}"#),
        ] {
            assert_eq!(stringified(source), printed);
        }
    }

    #[test]
    fn values_print_as_json_stringify_prints_them() {
        let source = " [ 1.0 , -0, 1e400 , \"\\u00e9\\/\\ud800\" , { } , [ ] , {\"a\" : [ null,true,false ] } ] ";
        let document = Document::parse(source).unwrap();
        let value = document.root();
        assert_eq!(value.stringify(), r#"[1,0,null,"é/\ud800",{},[],{"a":[null,true,false]}]"#);
        assert_eq!(
            value.stringify_pretty().unwrap(),
            "[\n  1,\n  0,\n  null,\n  \"é/\\ud800\",\n  {},\n  [],\n  {\n    \"a\": [\n      null,\n      \
             true,\n      false\n    ]\n  }\n]"
        );
        assert_eq!(JsonValue::from(value).text(), value.stringify());
    }

    #[test]
    fn truthiness_is_javascripts() {
        for (source, truthy) in [
            ("null", false),
            ("false", false),
            ("0", false),
            ("-0", false),
            ("\"\"", false),
            ("true", true),
            ("1e999", true),
            ("\"0\"", true),
            ("[]", true),
            ("{}", true),
        ] {
            assert_eq!(Document::parse(source).unwrap().root().is_truthy(), truthy, "{source}");
        }
    }

    #[test]
    fn setting_a_member_keeps_or_finds_its_place() {
        let mut document = Document::parse(r#"[{"id":"s","n":1,"x":[1]},5]"#).unwrap();
        let entry = document.root().items().next().unwrap().id();
        document.set(entry, "n", 2.0);
        document.set(entry, "new \"key\"", "é\n");
        document.set(entry, "7", true);
        document.set(entry, "x", Scalar::Null);
        let number = document.root().items().nth(1).unwrap().id();
        document.set(number, "ignored", 1.0);
        assert_eq!(
            document.root().stringify(),
            r#"[{"7":true,"id":"s","n":2,"x":null,"new \"key\"":"é\n"},5]"#
        );
    }

    #[test]
    fn objects_are_built_of_values_that_are_there() {
        let mut document = Document::parse(r#"{"a":[1],"b":"x"}"#).unwrap();
        let members = ["a", "b"].map(|key| document.root().get(key).unwrap().id());
        let infinity = document.scalar(f64::INFINITY);
        let object = document.object([
            (&*JsonStr::escape("z"), members[1]),
            (&*JsonStr::escape("1"), members[0]),
            (&*JsonStr::escape("i"), infinity),
        ]);
        assert_eq!(document.get(object).stringify(), r#"{"1":[1],"z":"x","i":null}"#);
    }

    #[test]
    fn hostile_nesting_is_read_printed_and_dropped() {
        const LEVELS: usize = 1_000_000;
        let arrays = "[".repeat(LEVELS) + &"]".repeat(LEVELS);
        let objects = "{\"a\":".repeat(LEVELS) + "0" + &"}".repeat(LEVELS);
        for text in [arrays, objects] {
            let document = Document::parse(&text).unwrap();
            assert!(document.root().stringify() == text);
            assert_eq!(document.root().stringify_pretty(), None);
            assert!(Document::parse(&text[..text.len() - 1]).is_err());
        }
        let wide = format!("{{{}\"k\":0}}", "\"k\":0,\"1\":2,".repeat(300_000));
        assert_eq!(stringified(&wide), r#"{"1":2,"k":0}"#);
    }
}
