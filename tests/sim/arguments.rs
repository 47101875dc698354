//! What a run is asked for, on its command line.

use antiphon_harness::seeds;
use std::ops::Range;

pub(crate) const USAGE: &str =
    "usage: cargo sim [--seeds FROM..TO [--switching] | --seed N [--shrink] | --flaw NAME | NAME...]";

/// What to do.
pub(crate) enum Asked {
    Help,
    /// The names of the tests.
    List,
    /// One history, with its trace.
    Seed(u64),
    /// A range of histories.
    Seeds(Range<u64>),
    /// The first history that finds this planted bug.
    Flaw(String),
    /// Tests whose names contain one of these; all of them if there is none.
    Tests(Vec<String>),
}

pub(crate) struct Arguments {
    pub(crate) asked: Asked,
    pub(crate) shrink: bool,
    /// Only histories in which policies change.
    pub(crate) switching: bool,
}

impl Arguments {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut asked, mut names, mut shrink, mut switching) = (None, Vec::new(), false, false);
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
                "--flaw" => asked = Some(Asked::Flaw(words.next().ok_or("`--flaw` needs a name")?)),
                "--shrink" => shrink = true,
                "--switching" => switching = true,
                // What `cargo test` hands to every suite.
                "--nocapture" | "--no-capture" | "--quiet" | "-q" | "--exact" | "--include-ignored" => {}
                word if word.starts_with("--test-threads") || word.starts_with("--format") => {}
                word if word.starts_with('-') => return Err(format!("`{word}` is not known")),
                _ => names.push(word),
            }
        }
        Ok(Self { asked: asked.unwrap_or(Asked::Tests(names)), shrink, switching })
    }
}
