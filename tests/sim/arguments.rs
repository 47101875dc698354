//! What a run is asked for, on its command line.

use antiphon_harness::seeds;
use std::ops::Range;

pub(crate) const USAGE: &str = "usage: cargo sim [--seeds FROM..TO | --seed N [--shrink] | NAME...]";

/// What to do.
pub(crate) enum Asked {
    Help,
    /// The names of the tests.
    List,
    /// One history, with its trace.
    Seed(u64),
    /// A range of histories.
    Seeds(Range<u64>),
    /// Tests whose names contain one of these; all of them if there is none.
    Tests(Vec<String>),
}

pub(crate) struct Arguments {
    pub(crate) asked: Asked,
    pub(crate) shrink: bool,
}

impl Arguments {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut asked, mut names, mut shrink) = (None, Vec::new(), false);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => asked = Some(Asked::Help),
                "--list" => asked = Some(Asked::List),
                "--seeds" => {
                    let range = words.next().and_then(|range| seeds::range(&range));
                    asked = Some(Asked::Seeds(range.ok_or("`--seeds` needs a range such as `0..1000`")?));
                }
                "--seed" => {
                    let seed = words.next().and_then(|seed| seed.parse().ok());
                    asked = Some(Asked::Seed(seed.ok_or("`--seed` needs a number")?));
                }
                "--shrink" => shrink = true,
                // What `cargo test` hands to every suite.
                "--nocapture" | "--no-capture" | "--quiet" | "-q" | "--exact" | "--include-ignored" => {}
                word if word.starts_with("--test-threads") || word.starts_with("--format") => {}
                word if word.starts_with('-') => return Err(format!("`{word}` is not known")),
                _ => names.push(word),
            }
        }
        Ok(Self { asked: asked.unwrap_or(Asked::Tests(names)), shrink })
    }
}
