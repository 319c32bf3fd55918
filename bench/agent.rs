//! The agent of the benchmark: writes the lines of an answer as fast as the pipe takes them, or at a
//! given pace. Native, so that what is measured is never this. No dependencies: built by `rustc -O`.

use std::{
    env,
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

/// Lines that are written at once in a flood: about what a pipe holds.
const BLOCK_LINES: usize = 900;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<usize>().ok());
    let done = match (args.first().map(String::as_str), number(1), number(2), number(3)) {
        (Some("flood"), Some(count), Some(length), _) => flood(count, length),
        (Some("pace"), Some(count), Some(length), Some(each_second)) => {
            pace(count, length, each_second)
        }
        (Some("wait"), ..) => wait(),
        _ => {
            eprintln!("usage: agent flood COUNT LENGTH | pace COUNT LENGTH EACH_SECOND | wait");
            std::process::exit(2);
        }
    };
    // A reader that has gone away is no failure.
    let _ = done;
}

/// A line whose delta has `length` bytes and differs from its neighbours.
fn line(number: usize, length: usize) -> String {
    let word = format!("{number:>7} ");
    let delta: String = word.chars().cycle().take(length).collect();
    format!("{{\"event\":\"agent\",\"stream\":\"assistant\",\"data\":{{\"delta\":\"{delta}\"}}}}\n")
}

fn flood(count: usize, length: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let lines = BLOCK_LINES.min((1 << 18) / length.max(1)).max(1);
    let block: Vec<String> = (0..lines).map(|number| line(number, length)).collect();
    let whole = block.concat();
    for _ in 0..count / lines {
        out.write_all(whole.as_bytes())?;
    }
    out.write_all(block[..count % lines].concat().as_bytes())?;
    out.flush()
}

fn pace(count: usize, length: usize, each_second: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let begin = Instant::now();
    for number in 0..count {
        let due = Duration::from_secs_f64(number as f64 / each_second.max(1) as f64);
        thread::sleep(due.saturating_sub(begin.elapsed()));
        out.write_all(line(number, length).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

/// One word, then nothing until it is stopped.
fn wait() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line(0, 8).as_bytes())?;
    out.flush()?;
    loop {
        thread::park();
    }
}
