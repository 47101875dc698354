//! `antiphon plugin bench`: how long a component takes.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use antiphon_core::hash::{Hash, PluginError, fnv::Fnv, xxh3::Xxh3};
use antiphon_core::resolve::{LastWriteWins, Resolve};
use antiphon_plugin::{HostOptions, Limits, Origin, World};
use serde::Serialize;

use super::progress::Progress;
use super::subject::{Loaded, Subject, Told, Which, load, start, unusable, yardstick};
use super::test::short;
use crate::cli::shown::{self, bytes};
use crate::failure::{Failure, Kind};
use crate::trial::pace::{self, Pace, median};
use crate::trial::tables;

/// Measure a component: questions a second, fuel, memory, and what a start costs
///
/// Beside it stands its native twin if the host has one, else the official component that does the least. Clashes are
/// of two rows of five columns, keys are numbers. Other work on the machine shows in the figures.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Bench {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    told: Told,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long each figure is measured.
const LONG: Duration = Duration::from_millis(250);
const INSTANCES: usize = 50;

#[derive(Serialize)]
struct Measured {
    name: String,
    world: &'static str,
    size: usize,
    compile_cold_ms: f64,
    compile_cached_ms: f64,
    instantiate_us: f64,
    memory_peak_bytes: usize,
    /// Of the largest batches.
    fuel_per_row: u64,
    /// What stands beside it.
    beside: &'static str,
    paces: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    batch: usize,
    per_second: f64,
    beside_per_second: f64,
    /// How many times as long as what stands beside it.
    times: f64,
}

impl Bench {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        let subject = self.which.find(self.told)?;
        let mut progress = Progress::new("measured");
        progress.say("measuring");
        let measured = measure(&subject)?;
        drop(progress);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &measured).map_err(|error| Failure::from(io::Error::from(error)))?;
            writeln!(out)?;
        } else {
            measured.write(&mut out)?;
        }
        Ok(out.flush()?)
    }
}

fn measure(subject: &Subject) -> Result<Measured, Failure> {
    // A cache of its own, so that one start is cold and the next is not, whatever was compiled before.
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::caused(Kind::General, "cannot make a folder for compiled components", &error))?;
    let options = HostOptions { cache_dir: Some(folder.path().join("components")), compiler: None };
    let host = start(&options)?;
    let began = Instant::now();
    let anatomy = subject.examine(&host).map_err(|error| unusable(&error))?;
    let compile_cold = began.elapsed();
    let Some(world) = anatomy.world.filter(|world| world.is_pure()) else {
        let what = anatomy.world.map_or("a component of no world of ours", World::name);
        return Err(Failure::new(
            Kind::Data,
            format!("`{}` is {what}, and only resolvers and hashers are measured", subject.source.name),
        ));
    };
    let warm = start(&options)?;
    let began = Instant::now();
    subject.examine(&warm).map_err(|error| unusable(&error))?;
    let compile_cached = began.elapsed();

    let mut loaded = subject.load(&warm, world).map_err(|error| unusable(&error))?;
    let instance = median(INSTANCES, || match &mut loaded {
        Loaded::Resolver(resolver) => resolver.try_instance(),
        Loaded::Hasher(hasher) => hasher.try_instance(),
    });
    let instance = instance.map_err(|error| unusable(&error))?;

    let failed = |error: PluginError| {
        Failure::new(Kind::Data, error.to_string())
            .hint("settings are given with `--settings NAME=VALUE`; `antiphon plugin check` says more")
    };
    let table = pace::table(&tables::words(&subject.settings));
    let (paces, fuel) = match &mut loaded {
        Loaded::Resolver(resolver) => {
            (pace::of_resolver(resolver, &table, LONG).map_err(failed)?, resolver.fuel_used())
        }
        Loaded::Hasher(hasher) => (pace::of_hasher(hasher, &table, LONG).map_err(failed)?, hasher.fuel_used()),
    };
    let rows = paces.last().map_or(1, |pace| pace.batch.max(1));
    let (beside, others) = beside(subject, &warm, world, &table)?;
    let line = |(pace, other): (&Pace, &Pace)| Line {
        batch: pace.batch,
        per_second: pace.per_second,
        beside_per_second: other.per_second,
        times: other.per_second / pace.per_second,
    };
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    Ok(Measured {
        name: subject.source.name.clone(),
        world: world.name(),
        size: subject.source.bytes.len(),
        compile_cold_ms: milliseconds(compile_cold),
        compile_cached_ms: milliseconds(compile_cached),
        instantiate_us: milliseconds(instance) * 1000.0,
        memory_peak_bytes: loaded.memory_peak(),
        fuel_per_row: fuel / rows as u64,
        beside,
        paces: paces.iter().zip(&others).map(line).collect(),
    })
}

/// The native twin, or the official component that does the least.
fn beside(
    subject: &Subject,
    host: &antiphon_plugin::PluginHost,
    world: World,
    table: &antiphon_core::schema::Table,
) -> Result<(&'static str, Vec<Pace>), Failure> {
    let failed = |error: PluginError| Failure::new(Kind::General, error.to_string());
    let official = subject.source.origin == Origin::Official;
    let hashed = |hasher: &mut dyn Hash| pace::of_hasher(hasher, table, LONG).map_err(failed);
    let resolved = |resolver: &mut dyn Resolve| pace::of_resolver(resolver, table, LONG).map_err(failed);
    match subject.source.name.as_str() {
        "fnv" if official => return Ok(("native twin", hashed(&mut Fnv::default())?)),
        // The twin of one with settings would have to have them too, and takes the same time.
        "xxh3" if official => return Ok(("native twin", hashed(&mut Xxh3::default())?)),
        "last-write-wins" if official => return Ok(("native twin", resolved(&mut LastWriteWins)?)),
        _ => {}
    }
    let source = yardstick(world).ok_or_else(|| Failure::new(Kind::General, "nothing to compare with"))?;
    match load(host, &source, &[], &Limits::default(), world).map_err(|error| unusable(&error))? {
        Loaded::Resolver(mut resolver) => Ok(("last-write-wins", resolved(&mut resolver)?)),
        Loaded::Hasher(mut hasher) => Ok(("fnv", hashed(&mut hasher)?)),
    }
}

impl Measured {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let row = if self.world == "hasher" { "key" } else { "clash" };
        writeln!(out, "{} `{}`, {}", self.world, shown::name(&self.name), bytes(self.size as u64))?;
        let time = |milliseconds: f64| short(Duration::from_secs_f64(milliseconds / 1000.0));
        writeln!(
            out,
            "  compile    {} cold, {} from the cache",
            time(self.compile_cold_ms),
            time(self.compile_cached_ms)
        )?;
        writeln!(out, "  instance   {}", time(self.instantiate_us / 1000.0))?;
        writeln!(out, "  memory     {} at most", bytes(self.memory_peak_bytes as u64))?;
        writeln!(out, "  fuel       {} a {row}", self.fuel_per_row)?;
        writeln!(out, "\n  batches of {:>14} {:>18}", "a second", self.beside)?;
        for line in &self.paces {
            writeln!(
                out,
                "  {:10} {:>14} {:>18}   {:.1} times as long",
                line.batch,
                pretty(line.per_second),
                pretty(line.beside_per_second),
                line.times
            )?;
        }
        Ok(())
    }
}

/// A number of questions a second.
fn pretty(number: f64) -> String {
    match number {
        _ if number >= 10e6 => format!("{:.0} M", number / 1e6),
        _ if number >= 1e6 => format!("{:.1} M", number / 1e6),
        _ if number >= 1e3 => format!("{:.0} k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}
