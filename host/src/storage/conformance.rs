//! One suite for every store: what the contract of [`Store`] says, shown.
//!
//! It keeps to names that begin with a word of its own, and removes what it made. `antiphon plugin test` runs it, too.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use antiphon_core::store::{ErrorKind, LIST_MAX, Name, Object, Part, Put, Store, StoreError, Traits};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The largest object.
    pub object_bytes: usize,
    /// How many objects are listed.
    pub listed: u32,
    /// How many threads ask at once.
    pub threads: usize,
    /// How long names are at most. All stores must take 400 bytes, and not every server that tests can start does.
    pub name_bytes: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { object_bytes: 32 << 20, listed: 2500, threads: 16, name_bytes: 400 }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it was.
    pub what: &'static str,
    /// How it ended.
    pub outcome: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}

type Trial = fn(&Suite<'_>) -> Result<(), String>;

const TRIALS: &[(&str, Trial)] = &[
    ("it can be reached and written", reached),
    ("objects from nothing to the largest come back as they were put", sizes),
    ("what is put again replaces what was there", replaced),
    ("what is not there is not found, and deleting it is fine", missing),
    ("parts of an object", parts),
    ("an object that may not be replaced is not", absent),
    ("of many who want to be the first, one is", first),
    ("names of every sign and length", names),
    ("a listing is complete, in order, and in pages", listing),
    ("many at once", at_once),
    ("many writers of one object leave one of theirs, whole", one_name),
];

struct Suite<'a> {
    store: &'a dyn Store,
    traits: Traits,
    extent: Extent,
    word: &'a str,
}

/// Runs the whole suite, under names that begin with `word`. `told` hears of each step when it is done.
pub fn run(store: &dyn Store, word: &str, extent: Extent, mut told: impl FnMut(&Step)) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |what, outcome, begun: Instant| {
        let step = Step { what, outcome, took: begun.elapsed() };
        told(&step);
        steps.push(step);
    };
    let begun = Instant::now();
    let traits = match store.traits() {
        Ok(traits) => traits,
        Err(error) => {
            step("it says what it can do", Err(error.to_string()), begun);
            return steps;
        }
    };
    let suite = Suite { store, traits, extent, word };
    for (what, trial) in TRIALS {
        let begun = Instant::now();
        step(what, trial(&suite), begun);
    }
    let begun = Instant::now();
    step("what was made is removed again", suite.clear(), begun);
    steps
}

/// Bytes that look like nothing in particular, the same for the same seed.
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

fn text(error: StoreError) -> String {
    error.message
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn is<R: std::fmt::Debug>(kind: ErrorKind, what: &str, answer: Result<R, StoreError>) -> Result<(), String> {
    match answer {
        Err(error) if error.kind == kind => Ok(()),
        Err(error) => Err(format!("{what}: {:?} instead of {kind:?}: {error}", error.kind)),
        Ok(_) => Err(format!("{what}: it succeeded instead of failing with {kind:?}")),
    }
}

impl Suite<'_> {
    fn name(&self, rest: &str) -> Result<Name, String> {
        Name::new(format!("{}/{rest}", self.word)).map_err(|error| error.to_string())
    }

    fn put(&self, rest: &str, body: &[u8]) -> Result<Name, String> {
        let name = self.name(rest)?;
        self.store.put(&name, body, Put::Replace).map_err(text)?;
        Ok(name)
    }

    fn holds(&self, name: &Name, body: &[u8]) -> Result<(), String> {
        let found = self.store.get(name, None).map_err(text)?;
        ensure(found == body, || {
            let at = found.iter().zip(body).position(|(found, put)| found != put);
            let at = at.unwrap_or(found.len().min(body.len()));
            format!(
                "`{name}`: {} bytes were put, {} came back, which differ from byte {at} on",
                body.len(),
                found.len()
            )
        })
    }

    /// All that begins with this, in pages of so many.
    fn all(&self, prefix: &str, page: u32) -> Result<Vec<Object>, String> {
        let mut all: Vec<Object> = Vec::new();
        loop {
            let after = all.last().map(|last| last.name.clone());
            let found = self.store.list(prefix, after.as_ref(), page).map_err(text)?;
            let last = found.len() < page.min(LIST_MAX) as usize;
            all.extend(found);
            if last {
                return Ok(all);
            }
            ensure(all.len() < 100_000, || "the listing has no end".to_owned())?;
        }
    }

    fn clear(&self) -> Result<(), String> {
        let prefix = format!("{}/", self.word);
        for _ in 0..100 {
            let found = self.store.list(&prefix, None, LIST_MAX).map_err(text)?;
            if found.is_empty() {
                return Ok(());
            }
            let names: Vec<Name> = found.into_iter().map(|object| object.name).collect();
            self.store.delete(&names).map_err(text)?;
        }
        Err("what is deleted is still listed".to_owned())
    }

    /// Does this on many threads at once; gives what each came to.
    fn together<R: Send>(&self, work: impl Fn(usize) -> Result<R, String> + Sync) -> Result<Vec<R>, String> {
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..self.extent.threads).map(|turn| scope.spawn(move || work(turn))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
                .collect()
        })
    }
}

fn reached(suite: &Suite<'_>) -> Result<(), String> {
    suite.store.check().map_err(text)?;
    ensure(suite.traits.max_object >= 8 << 20, || {
        format!("it takes {} bytes at most, and snapshots need 8 MiB", suite.traits.max_object)
    })?;
    ensure(suite.all(&format!("{}/", suite.word), LIST_MAX)?.is_empty(), || {
        "there are objects already where there must be none".to_owned()
    })
}

fn sizes(suite: &Suite<'_>) -> Result<(), String> {
    let most = usize::try_from(suite.traits.max_object).unwrap_or(usize::MAX).min(suite.extent.object_bytes);
    for size in [0, 1, 65_537, 8 << 20, 32 << 20] {
        if size > most {
            continue;
        }
        let body = noise(size as u64, size);
        let name = suite.put(&format!("sizes/{size}"), &body)?;
        suite.holds(&name, &body)?;
        let object = suite.store.stat(&name).map_err(text)?;
        ensure(object.size == size as u64, || {
            format!("`{name}` has {size} bytes, and is said to have {}", object.size)
        })?;
        suite.store.delete(&[name]).map_err(text)?;
    }
    Ok(())
}

fn replaced(suite: &Suite<'_>) -> Result<(), String> {
    let name = suite.put("replaced", &noise(1, 100_000))?;
    for body in [noise(2, 50_000), noise(3, 150_000), Vec::new(), b"last".to_vec()] {
        suite.store.put(&name, &body, Put::Replace).map_err(text)?;
        suite.holds(&name, &body)?;
    }
    Ok(())
}

fn missing(suite: &Suite<'_>) -> Result<(), String> {
    let name = suite.name("missing/never")?;
    is(ErrorKind::NotFound, "reading", suite.store.get(&name, None))?;
    is(ErrorKind::NotFound, "reading a part", suite.store.get(&name, Some(Part { offset: 0, length: 1 })))?;
    is(ErrorKind::NotFound, "looking", suite.store.stat(&name))?;
    suite.store.delete(std::slice::from_ref(&name)).map_err(text)?;
    suite.store.delete(&[]).map_err(text)?;
    let there = suite.put("missing/there", b"x")?;
    // What names begin with is no object, and neither is what begins with an object.
    is(ErrorKind::NotFound, "reading what names begin with", suite.store.get(&suite.name("missing")?, None))?;
    is(ErrorKind::NotFound, "looking behind an object", suite.store.stat(&suite.name("missing/there/more")?))?;
    suite.store.delete(&[name, there.clone()]).map_err(text)?;
    is(ErrorKind::NotFound, "reading what was deleted", suite.store.get(&there, None))?;
    is(ErrorKind::NotFound, "looking for what was deleted", suite.store.stat(&there))
}

fn parts(suite: &Suite<'_>) -> Result<(), String> {
    let body = noise(4, 300_001);
    let name = suite.put("parts", &body)?;
    let end = body.len();
    let parts = [
        (0, 0),
        (0, 1),
        (0, end),
        (1, 2),
        (65_535, 65_538),
        (end - 1, 1),
        (end - 1, 99),
        (0, end + 9),
        (end, 5),
        (end + 7, 1),
    ];
    for (offset, length) in parts {
        let wanted = body.get(offset.min(end)..end.min(offset + length)).unwrap_or_default();
        let part = Part { offset: offset as u64, length: length as u64 };
        let found = suite.store.get(&name, Some(part)).map_err(text)?;
        ensure(found == wanted, || format!("{length} bytes from {offset}: {} of {} came", found.len(), wanted.len()))?;
    }
    let empty = suite.put("parts-of-nothing", b"")?;
    let found = suite.store.get(&empty, Some(Part { offset: 0, length: 10 })).map_err(text)?;
    ensure(found.is_empty(), || "bytes came out of an empty object".to_owned())
}

fn absent(suite: &Suite<'_>) -> Result<(), String> {
    let name = suite.name("absent/manifest")?;
    if !suite.traits.put_if_absent {
        return Ok(());
    }
    suite.store.put(&name, b"first", Put::IfAbsent).map_err(text)?;
    is(ErrorKind::Exists, "putting a second one", suite.store.put(&name, b"second", Put::IfAbsent))?;
    suite.holds(&name, b"first")?;
    suite.store.delete(std::slice::from_ref(&name)).map_err(text)?;
    suite.store.put(&name, b"third", Put::IfAbsent).map_err(text)?;
    suite.holds(&name, b"third")
}

fn first(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.traits.put_if_absent {
        return Ok(());
    }
    for round in 0..4 {
        let name = suite.name(&format!("first/{round}"))?;
        let body = |turn: usize| noise(turn as u64, 10_000);
        let firsts = suite.together(|turn| match suite.store.put(&name, &body(turn), Put::IfAbsent) {
            Ok(()) => Ok(Some(turn)),
            Err(error) if error.kind == ErrorKind::Exists => Ok(None),
            Err(error) => Err(error.message),
        })?;
        let firsts: Vec<usize> = firsts.into_iter().flatten().collect();
        let [first] = firsts[..] else { return Err(format!("{} were the first", firsts.len())) };
        suite.holds(&name, &body(first))?;
    }
    Ok(())
}

fn names(suite: &Suite<'_>) -> Result<(), String> {
    let signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    // As long as a name can be, of parts that a file system takes.
    let mut long = format!("{}/names/", suite.word);
    let most = suite.extent.name_bytes;
    while long.len() < most {
        long.push(if long.len() % 100 == 99 && long.len() < most - 1 { '/' } else { 'x' });
    }
    let long = long.get(suite.word.len() + 1..).unwrap_or_default().to_owned();
    let cases = ["names/UPPER", "names/upper", "names/.hidden", "names/-dash", "names/a.b..c", "names/1/2/3/4/5/6/7/8"];
    let mut cases: Vec<String> = cases.map(str::to_owned).to_vec();
    cases.extend([format!("names/{signs}"), long]);
    for (seed, case) in (0..).zip(&cases) {
        suite.put(case, &noise(seed, 1000))?;
    }
    for (seed, case) in (0..).zip(&cases) {
        suite.holds(&suite.name(case)?, &noise(seed, 1000))?;
    }
    let wanted: BTreeSet<Name> = cases.iter().map(|case| suite.name(case)).collect::<Result<_, _>>()?;
    let found = suite.all(&format!("{}/names/", suite.word), LIST_MAX)?;
    let found: BTreeSet<Name> = found.into_iter().map(|object| object.name).collect();
    ensure(found == wanted, || format!("the listing differs by {:?}", found.symmetric_difference(&wanted).next()))
}

fn listing(suite: &Suite<'_>) -> Result<(), String> {
    let count = suite.extent.listed;
    // Two kinds of names that a careless order would mix up: `-` and `.` come before `/`.
    let rest = |number: u32| match number % 5 {
        0 => format!("listing/a/{number:05}"),
        1 => format!("listing/a-{number:05}"),
        2 => format!("listing/a.{number:05}"),
        3 => format!("listing/a/b/{number:05}/c"),
        _ => format!("listing/B{number:05}"),
    };
    let threads = u32::try_from(suite.extent.threads).unwrap_or(1);
    suite.together(|turn| {
        let turn = u32::try_from(turn).unwrap_or_default();
        (turn..count).step_by(suite.extent.threads).try_for_each(|number| {
            suite.put(&rest(number), &noise(number.into(), (number % threads) as usize)).map(drop)
        })
    })?;
    let mut wanted: Vec<(Name, u64)> = Vec::new();
    for number in 0..count {
        wanted.push((suite.name(&rest(number))?, u64::from(number % threads)));
    }
    wanted.sort();
    let same = |what: &str, found: Vec<Object>, wanted: Vec<(Name, u64)>| {
        let found: Vec<(Name, u64)> = found.into_iter().map(|object| (object.name, object.size)).collect();
        let at = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        ensure(found == wanted, || {
            format!(
                "{what}: {} of {} are listed, and at {} it is {:?} instead of {:?}",
                found.len(),
                wanted.len(),
                at.unwrap_or(found.len().min(wanted.len())),
                at.and_then(|at| found.get(at)),
                at.and_then(|at| wanted.get(at)),
            )
        })
    };
    let below = |prefix: &str| -> Vec<(Name, u64)> {
        let prefix = format!("{}/{prefix}", suite.word);
        wanted.iter().filter(|(name, _)| name.as_str().starts_with(&prefix)).cloned().collect()
    };
    let list = |prefix: &str, page| suite.all(&format!("{}/{prefix}", suite.word), page);
    same("all", list("listing/", LIST_MAX)?, below("listing/"))?;
    same("in pages of 333", list("listing/", 333)?, below("listing/"))?;
    same("below `a/`", list("listing/a/", LIST_MAX)?, below("listing/a/"))?;
    same("what begins with `a`", list("listing/a", 700)?, below("listing/a"))?;
    same("what begins with half a part", list("listing/a/b/000", 5)?, below("listing/a/b/000"))?;
    same("nothing", list("listing/zzz", 5)?, Vec::new())?;
    // After a name that is not there, and one that is.
    for after in ["listing/a.9", "listing/a/b/00003/c"] {
        let after = suite.name(after)?;
        let found = suite.store.list(&format!("{}/listing/", suite.word), Some(&after), 7).map_err(text)?;
        let next = wanted.iter().filter(|(name, _)| *name > after).take(7).cloned().collect();
        same("after a name", found, next)?;
    }
    let names: Vec<Name> = wanted.iter().map(|(name, _)| name.clone()).collect();
    for names in names.chunks(LIST_MAX as usize) {
        suite.store.delete(names).map_err(text)?;
    }
    same("after all were deleted", list("listing/", LIST_MAX)?, Vec::new())
}

fn at_once(suite: &Suite<'_>) -> Result<(), String> {
    suite.together(|turn| {
        for round in 0..4_u64 {
            let body = noise(round * 1000 + turn as u64, 1 << 20);
            let name = suite.put(&format!("at-once/{turn}"), &body)?;
            suite.holds(&name, &body)?;
        }
        Ok(())
    })?;
    let found = suite.all(&format!("{}/at-once/", suite.word), LIST_MAX)?;
    ensure(found.len() == suite.extent.threads, || format!("{} objects are there", found.len()))
}

fn one_name(suite: &Suite<'_>) -> Result<(), String> {
    let bodies: Vec<Vec<u8>> =
        (0..suite.extent.threads).map(|turn| noise(turn as u64, 200_000 + turn * 1000)).collect();
    let name = suite.put("one-name", bodies.first().map_or(&[], Vec::as_slice))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let found = match suite.store.get(&name, None) {
                    // Without the trait a reader may see anything, nothing among it, and knows by the hash.
                    Err(error) if !suite.traits.atomic_put && error.kind == ErrorKind::NotFound => continue,
                    found => found.map_err(text)?,
                };
                ensure(!suite.traits.atomic_put || bodies.contains(&found), || {
                    format!("a reader saw {} bytes that nobody wrote so", found.len())
                })?;
            }
            Ok(())
        });
        let written = suite.together(|turn| {
            let body = bodies.get(turn).map_or(&[][..], Vec::as_slice);
            (0..4).try_for_each(|_| suite.store.put(&name, body, Put::Replace).map_err(text))
        });
        done.store(true, Ordering::Relaxed);
        let read = reader.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()));
        written.and(read)
    })?;
    let found = suite.store.get(&name, None).map_err(text)?;
    ensure(bodies.contains(&found), || format!("what is left are {} bytes that nobody wrote so", found.len()))
}
