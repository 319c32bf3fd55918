//! Node itself as the judge: thousands of random texts, read, printed, trimmed and measured on
//! both sides.

use active_runs::json::{Document, JsonStr, Value};
use flate2::read::GzDecoder;
use std::{
    fmt::Write as _,
    fs::File,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

/// Answers each text of a JSON array on stdin with what JavaScript makes of it: null where
/// `JSON.parse` throws.
const JUDGE: &str = r#"
const texts = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const answers = texts.map((text) => {
  let value;
  try { value = JSON.parse(text); } catch { return null; }
  const units = [];
  if (typeof value === 'string') for (let i = 0; i < value.length; i++) units.push(value.charCodeAt(i));
  return {
    plain: JSON.stringify(value),
    pretty: JSON.stringify(value, null, 2),
    truthy: Boolean(value),
    trimmed: typeof value === 'string' ? JSON.stringify(value.trim()) : null,
    units,
  };
});
process.stdout.write(JSON.stringify(answers));
"#;

/// Xorshift: the same texts at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn white(&mut self, out: &mut String) {
        if self.below(4) == 0 {
            out.push_str(self.pick(&[" ", "\t", "\n", "\r", "  "]));
        }
    }

    fn number(&mut self, out: &mut String) {
        let bits = self.below(u64::MAX);
        let _ = match self.below(6) {
            0 => write!(out, "{}", bits % 1_000),
            1 => write!(out, "-{}", bits),
            2 => write!(out, "{}.{}", bits % 100, self.below(u64::MAX)),
            3 => {
                write!(out, "{}.{:05}E{}", bits % 10, bits % 100_000, self.below(700) as i64 - 350)
            }
            4 => write!(
                out,
                "{}",
                self.pick(&["-0", "0.0", "1e400", "-1e999", "5e-324", "1e21", "1e-7"])
            ),
            _ => match f64::from_bits(bits) {
                number if number.is_finite() => write!(out, "{number:e}"),
                _ => write!(out, "0"),
            },
        };
    }

    fn string(&mut self, out: &mut String) {
        out.push('"');
        for _ in 0..self.below(12) {
            match self.below(8) {
                0 => out.push_str(
                    self.pick(&["\\n", "\\t", "\\r", "\\f", "\\b", "\\/", "\\\"", "\\\\"]),
                ),
                1 => {
                    let _ = write!(out, "\\u{:04x}", self.below(0x1_0000));
                }
                2 => {
                    let _ = write!(out, "\\uD{:X}{:02x}", 8 + self.below(8), self.below(0x100));
                }
                3 => {
                    let _ = write!(out, "\\u{:04X}", self.below(0x30));
                }
                4 => out.push_str(
                    self.pick(&["\u{a0}", "\u{feff}", "\u{85}", "\u{2028}", "\u{3000}", " "]),
                ),
                5 => out.extend(
                    char::from_u32(32 + self.below(0x11_0000) as u32)
                        .filter(|c| !"\"\\".contains(*c)),
                ),
                _ => out.push_str(self.pick(&["a", "uDE00", "é", "🙂", "日本", "ud83d"])),
            }
        }
        out.push('"');
    }

    fn value(&mut self, depth: u64, out: &mut String) {
        self.white(out);
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => out.push_str(self.pick(&["null", "true", "false", "{}", "[]", "\"\"", "0"])),
            1 | 2 => self.number(out),
            3 | 4 => self.string(out),
            5 => {
                out.push('[');
                for place in 0..self.below(5) {
                    out.push_str(if place == 0 { "" } else { "," });
                    self.value(depth - 1, out);
                }
                out.push(']');
            }
            _ => {
                out.push('{');
                let many = if self.below(10) == 0 { 40 } else { 6 };
                for place in 0..self.below(many) {
                    out.push_str(if place == 0 { "" } else { "," });
                    self.white(out);
                    match self.below(4) {
                        0 => self.string(out),
                        1 => {
                            let _ = write!(out, "\"{}\"", self.below(30));
                        }
                        _ => out.push_str(self.pick(&[
                            "\"a\"",
                            "\"\\u0061\"",
                            "\"__proto__\"",
                            "\"constructor\"",
                            "\"01\"",
                            "\"-1\"",
                            "\"4294967294\"",
                            "\"4294967295\"",
                            "\"1e3\"",
                            "\"\"",
                            "\"length\"",
                        ])),
                    }
                    self.white(out);
                    out.push(':');
                    self.value(depth - 1, out);
                }
                out.push('}');
            }
        }
        self.white(out);
    }

    /// Breaks a text somewhere; it may still be valid.
    fn damage(&mut self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let at = self.below(chars.len() as u64 + 1) as usize;
        match self.below(3) {
            0 => chars.truncate(at),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ => chars.insert(
                at,
                self.pick(&[
                    "\"", "\\", ",", "}", "]", "0", "-", ".", "e", "\u{1}", ":", "\u{feff}",
                ])
                .chars()
                .next()
                .unwrap_or(' '),
            ),
        }
        chars.into_iter().collect()
    }
}

/// Node's answers to `texts`, in order.
fn ask_node(texts: &[String]) -> Document {
    let mut question = String::from("[");
    for (place, text) in texts.iter().enumerate() {
        let separator = if place == 0 { "" } else { "," };
        let _ = write!(question, "{separator}\"{}\"", JsonStr::escape(text).as_str());
    }
    question.push(']');
    let mut node = Command::new("node")
        .args(["-e", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is on the PATH");
    // Node reads all of stdin before it writes.
    let mut stdin = node.stdin.take().expect("stdin is a pipe");
    stdin.write_all(question.as_bytes()).expect("node reads");
    drop(stdin);
    let output = node.wait_with_output().expect("node answers");
    assert!(output.status.success());
    Document::parse(&String::from_utf8(output.stdout).expect("an answer is text"))
        .expect("an answer is JSON")
}

fn judge(texts: &[String]) {
    let answers = ask_node(texts);
    let mut valid = 0;
    for (text, answer) in texts.iter().zip(answers.root().items()) {
        let Ok(document) = Document::parse(text) else {
            assert!(answer.is_null(), "refused {text:?}");
            continue;
        };
        assert!(!answer.is_null(), "accepted {text:?}");
        valid += 1;
        let value = document.root();
        let said = |key: &str| Some(answer.get(key)?.as_str()?.decode()?.into_owned());
        assert_eq!(Some(value.stringify()), said("plain"), "{text:?}");
        assert_eq!(value.stringify_pretty(), said("pretty"), "{text:?}");
        assert_eq!(Some(value.is_truthy()), answer.get("truthy").map(Value::is_truthy), "{text:?}");
        if let Some(string) = value.as_str() {
            let trimmed = format!("\"{}\"", string.trim().as_str());
            assert_eq!(Some(trimmed), said("trimmed"), "{text:?}");
            let units = answer.get("units").into_iter().flat_map(Value::items);
            let units: Vec<_> = units.filter_map(Value::as_f64).map(|unit| unit as u16).collect();
            let mut own_units = Vec::new();
            string.write_utf16(&mut own_units);
            assert_eq!(own_units, units, "{text:?}");
            assert_eq!(string.utf16_len(), units.len(), "{text:?}");
        }
    }
    assert!(valid * 3 > texts.len(), "{valid} of {} texts are valid", texts.len());
}

#[test]
fn numbers_are_read_and_printed_as_node_does() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let number = |_| {
        let mut text = String::new();
        random.number(&mut text);
        text
    };
    judge(&(0..20_000).map(number).collect::<Vec<_>>());
}

#[test]
fn strings_are_read_printed_trimmed_and_measured_as_node_does() {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let string = |_| {
        let mut text = String::new();
        random.string(&mut text);
        text
    };
    judge(&(0..20_000).map(string).collect::<Vec<_>>());
}

#[test]
fn values_are_read_and_printed_as_node_does() {
    let mut random = Random(0x8cb9_2ba7_2f3d_8dd7);
    let value = |_| {
        let mut text = String::new();
        random.value(4, &mut text);
        text
    };
    judge(&(0..5_000).map(value).collect::<Vec<_>>());
}

#[test]
fn what_the_fuzzer_found_worth_keeping_is_read_and_printed_as_node_does() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/json.gz");
    let mut inputs = GzDecoder::new(File::open(corpus).expect("the corpus is there"));
    let mut texts = Vec::new();
    let mut length = [0; 4];
    while inputs.read_exact(&mut length).is_ok() {
        let mut input = vec![0; u32::from_le_bytes(length) as usize];
        inputs.read_exact(&mut input).expect("the corpus is whole");
        texts.extend(String::from_utf8(input).ok());
    }
    // Most of them are no JSON; those keep the test honest, too.
    texts.extend((0..2 * texts.len()).map(|number| number.to_string()));
    judge(&texts);
}

#[test]
fn damaged_texts_are_refused_where_node_refuses_them() {
    let mut random = Random(0xaef1_7502_108e_f2d9);
    let damaged = |place| {
        let mut text = String::new();
        random.value(2, &mut text);
        // The valid ones keep the test honest.
        if place % 2 == 0 { text } else { random.damage(&text) }
    };
    judge(&(0..10_000).map(damaged).collect::<Vec<_>>());
}
