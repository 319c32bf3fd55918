//! Lines: every cutting of the stream gives the same ones, and none is longer than the limit.
#![no_main]

use active_runs::lines::{Line, LineSplitter};
use libfuzzer_sys::fuzz_target;

fn split<'a>(chunks: impl Iterator<Item = &'a [u8]>, limit: usize) -> Vec<Option<Vec<u8>>> {
    let mut lines = Vec::new();
    let mut splitter = LineSplitter::new(limit);
    let mut take = |line: Line<'_>| match line {
        // `\r\n` ends two lines, and where a chunk ends between them is chance.
        Line::Bytes([]) => {}
        Line::Bytes(bytes) => lines.push(Some(bytes.to_vec())),
        Line::TooLong => lines.push(None),
    };
    for chunk in chunks {
        splitter.feed(chunk, &mut take);
    }
    splitter.end(&mut take);
    lines
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (limit, size, bytes) = (usize::from(input.0), usize::from(input.1) + 1, input.2);
    let whole = split(std::iter::once(bytes), limit);
    assert_eq!(split(bytes.chunks(size), limit), whole);
    assert_eq!(split(bytes.chunks(1), limit), whole);
    let expected: Vec<_> = bytes
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty())
        .map(|line| (line.len() <= limit).then(|| line.to_vec()))
        .collect();
    assert_eq!(whole, expected);
});
