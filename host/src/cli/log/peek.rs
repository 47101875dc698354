//! `antiphon log peek`: the changes in the log, or on their way to it.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;

use antiphon_core::codec;
use antiphon_core::entry::{Body, Changes, Chunk, Entry, InForce, Origin};
use antiphon_core::value::Value;
use serde::Serialize;

use super::super::look;
use super::super::shown::{Fields, JsonRow, SHORT, count, name, utc};
use super::Source;
use crate::db::{self, Mark, Waiting};
use crate::failure::{Failure, Kind};
use crate::log::{self, Shard};

/// Keys remembered to tell an insertion from an update. Beyond that a written row is an `upsert`.
const KEYS_MAX: usize = 2_000_000;

/// Print the changes in the log, one a line
///
/// With `--json` each is an object as HarmonyLite's users know it: FromNodeId and Payload with Id, Type, TableName and
/// Row; beside them shard, seq and time. Id is the number of the batch, which the changes of one transaction share. Type
/// is insert, update or delete, or upsert where the log no longer says whether the row was there before. Row holds all
/// columns, and of a deletion the key. Integers are exact at any size; a blob is {"$blob": base64}, text that is not
/// UTF-8 {"$text": base64}, and an infinity {"$real": "inf"}.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Peek {
    #[command(flatten)]
    source: Source,
    /// Only this shard; otherwise one shard after the other
    #[arg(long, value_name = "N")]
    shard: Option<Shard>,
    /// Only entries from this position on
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// At most so many changes
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only changes of this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// What this database has not brought into the log yet: batches that wait, then keys that are in no batch
    #[arg(long, conflicts_with_all = ["shard", "from"])]
    pending: bool,
    /// Values in full, however long
    #[arg(long)]
    full: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Peek {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { source, shard, from, limit, table, pending, full, json } = self;
        let found = source.find()?;
        let out = io::BufWriter::new(io::stdout().lock());
        let left = limit.unwrap_or(u64::MAX);
        let mut printer = Printer { out, json, most: if full { usize::MAX } else { SHORT }, table, left };
        if pending {
            let Some(database) = found.database.clone() else {
                return Err(Failure::usage("`--pending` needs the database whose changes are on their way")
                    .hint("name it: `antiphon log peek app.db --pending`"));
            };
            let log = found.look().ok();
            waiting(&mut printer, &database, log.as_ref())?;
        } else {
            let log = found.look()?;
            let shards = match shard {
                Some(shard) => vec![shard],
                None => log.shards().map_err(|error| look::unread_log(&error))?,
            };
            for shard in shards {
                entries(&mut printer, &log, shard, from)?;
            }
        }
        Ok(printer.out.flush()?)
    }
}

/// Why reading ended early.
enum Stopped {
    Log(log::Error),
    Db(db::Error),
    Failure(Failure),
}

impl From<log::Error> for Stopped {
    fn from(error: log::Error) -> Self {
        Self::Log(error)
    }
}

impl From<db::Error> for Stopped {
    fn from(error: db::Error) -> Self {
        Self::Db(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Which keys the log has spoken of, so that the first word about one is its insertion.
struct Known {
    /// `None` = the log does not begin at its beginning, or there are too many: nothing can be told.
    keys: Option<HashSet<u128, rustc_hash::FxBuildHasher>>,
}

impl Known {
    fn event(&mut self, table: &str, key: &[Value], present: bool) -> &'static str {
        let Some(keys) = &mut self.keys else { return if present { "upsert" } else { "delete" } };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&codec::encode_row(&[Value::from(table.to_ascii_lowercase().as_str())]));
        hasher.update(&codec::encode_row(key));
        let hash = hasher.finalize().as_bytes().first_chunk::<16>().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        if !present {
            keys.remove(&hash);
            return "delete";
        }
        let new = keys.insert(hash);
        if keys.len() > KEYS_MAX {
            self.keys = None;
        }
        if new { "insert" } else { "update" }
    }
}

fn entries(printer: &mut Printer<impl Write>, log: &log::Look, shard: Shard, from: u64) -> Result<(), Failure> {
    let first = log.bounds(shard).map_err(|error| look::unread_log(&error))?.first;
    let mut known = Known { keys: (first <= 1).then(HashSet::default) };
    // What comes before is read as well: it says which rows were there.
    let start = if known.keys.is_some() { 1 } else { from };
    let read = log.each(shard, start, |placed| {
        if printer.left == 0 {
            return Ok(false);
        }
        let entry = codec::decode(&placed.frame).map_err(|error| {
            Failure::new(
                Kind::Data,
                format!("entry {} of shard {shard} of the log cannot be read: {error}", placed.seq),
            )
        })?;
        let shown = placed.seq >= from;
        let place = Place { shard, seq: Some(placed.seq), time_ms: Some(placed.time / 1_000_000), pending: None };
        printer.entry(&place, &entry, shown.then_some(()), &mut known)?;
        Ok::<_, Stopped>(true)
    });
    ended(read, None)
}

fn ended(read: Result<(), Stopped>, database: Option<&PathBuf>) -> Result<(), Failure> {
    match (read, database) {
        (Ok(()), _) => Ok(()),
        (Err(Stopped::Failure(failure)), _) => Err(failure),
        (Err(Stopped::Log(error)), _) => Err(look::unread_log(&error)),
        (Err(Stopped::Db(error)), Some(path)) => Err(look::unread(path, &error)),
        (Err(Stopped::Db(error)), None) => Err(Failure::caused(Kind::General, "cannot read the database", &error)),
    }
}

fn waiting(printer: &mut Printer<impl Write>, path: &PathBuf, log: Option<&log::Look>) -> Result<(), Failure> {
    let database = look::database(path)?;
    let state = database.node().map_err(|error| look::unread(path, &error))?;
    let Some(state) = state else { return Err(look::never_ran(path)) };
    let fences = match log {
        Some(log) => log.origins().map_err(|error| look::unread_log(&error))?,
        None => Vec::new(),
    };
    let in_log = |shard: Shard, number: u64| {
        fences.iter().any(|(of, origin, last)| *of == shard && *origin == state.origin && *last >= number)
    };
    let (mut came, mut waits, mut marks) = (0u64, 0u64, 0u64);
    // A row of ours may be new or not: only the log could say.
    let mut known = Known { keys: None };
    let batches = database.waiting(|Waiting { shard, number, frame }| {
        if in_log(shard, number) {
            came += 1;
            return Ok(());
        }
        waits += 1;
        let entry = codec::decode(&frame).map_err(|error| {
            Failure::new(Kind::Data, format!("batch {number} of the outbox cannot be read: {error}"))
        })?;
        let place = Place { shard, seq: None, time_ms: Some(entry.clock), pending: Some("batch") };
        printer.entry(&place, &entry, Some(()), &mut known)?;
        Ok::<_, Stopped>(())
    });
    ended(batches, Some(path))?;
    let marked = database.marks(|mark| {
        marks += 1;
        printer.mark(&mark, state.origin)?;
        Ok::<_, Stopped>(())
    });
    ended(marked, Some(path))?;
    printer.out.flush()?;
    let mut talk = io::stderr().lock();
    writeln!(
        talk,
        "{} in the outbox and not in the log; {} in no batch",
        batch_count(waits),
        count(marks, "mark is", "marks are")
    )?;
    if came > 0 {
        writeln!(talk, "{} in the log and not read back yet", batch_count(came))?;
    }
    if log.is_none() {
        writeln!(talk, "the log can't be read: some of these batches may be in it; name it with `--log DIR`")?;
    }
    if state.scans > 0 {
        writeln!(
            talk,
            "{} whose rows are still being marked",
            count(state.scans, "table has rows", "tables have rows")
        )?;
    }
    Ok(())
}

fn batch_count(number: u64) -> String {
    count(number, "batch is", "batches are")
}

/// Where a change stands.
struct Place {
    shard: Shard,
    seq: Option<u64>,
    time_ms: Option<u64>,
    pending: Option<&'static str>,
}

/// Prints changes until there were enough.
struct Printer<W: Write> {
    out: W,
    json: bool,
    most: usize,
    table: Option<String>,
    left: u64,
}

/// One change.
struct Change<'a> {
    node: u64,
    number: Option<u64>,
    event: &'static str,
    table: &'a str,
    columns: &'a [String],
    values: &'a [Value],
}

impl<W: Write> Printer<W> {
    /// Prints an entry's changes if it is to be shown; takes note of its keys in any case.
    fn entry(&mut self, place: &Place, entry: &Entry, shown: Option<()>, known: &mut Known) -> Result<(), Failure> {
        match &entry.body {
            Body::Changes(Changes { chunks, .. }) => {
                for chunk in chunks {
                    self.chunk(place, entry, chunk, shown, known)?;
                }
                Ok(())
            }
            // They are no changes, and not what scripts look for.
            _ if shown.is_none() || self.json || self.table.is_some() || self.left == 0 => Ok(()),
            body => {
                self.left -= 1;
                let said = match body {
                    Body::Genesis(genesis) => {
                        format!("founds the cluster, with {}", count(genesis.shards.into(), "shard", "shards"))
                    }
                    Body::Founded => "all rows it founded the cluster with are in the log".to_owned(),
                    Body::Route(route) if route.whole => {
                        format!("table {} goes to one shard whole", name(&route.table))
                    }
                    Body::Route(route) => format!("table {} is spread by key", name(&route.table)),
                    Body::Decided(decision) => {
                        format!("version {} of the policies is decided on", decision.version)
                    }
                    Body::InForce(InForce { decision, halted: None }) => {
                        format!("version {} of the policies holds from here on", decision.version)
                    }
                    Body::InForce(InForce { decision, halted: Some(halted) }) => format!(
                        "version {} of the policies holds from here on, and from entry {} on where those before gave no \
                         verdict",
                        decision.version, halted.seq
                    ),
                    Body::Floor(position) => format!("times and tombstones up to entry {position} are forgotten"),
                    Body::Anew(before) => {
                        format!("the log begins again; this node stood at entry {} of what was lost", before.seq)
                    }
                    Body::Changes(_) => return Ok(()),
                };
                self.prefix(place)?;
                Ok(writeln!(self.out, "node {}  {said}", entry.origin.node)?)
            }
        }
    }

    fn chunk(
        &mut self,
        place: &Place,
        entry: &Entry,
        chunk: &Chunk,
        shown: Option<()>,
        known: &mut Known,
    ) -> Result<(), Failure> {
        let key_columns: Vec<String> =
            chunk.key.iter().filter_map(|&position| chunk.columns.get(position).cloned()).collect();
        let wanted = self.table.as_ref().is_none_or(|table| table.eq_ignore_ascii_case(&chunk.table));
        let written = chunk.written.iter().map(|row| (row, true));
        for (values, present) in written.chain(chunk.gone.iter().map(|key| (key, false))) {
            let key: Vec<Value> = if present {
                chunk.key.iter().filter_map(|&position| values.get(position).cloned()).collect()
            } else {
                values.to_vec()
            };
            let event = known.event(&chunk.table, &key, present);
            if shown.is_none() || !wanted || self.left == 0 {
                continue;
            }
            self.left -= 1;
            self.change(
                place,
                &Change {
                    node: entry.origin.node,
                    number: Some(entry.number),
                    event,
                    table: &chunk.table,
                    columns: if present { &chunk.columns } else { &key_columns },
                    values,
                },
            )?;
        }
        Ok(())
    }

    fn mark(&mut self, mark: &Mark, me: Origin) -> Result<(), Failure> {
        let wanted = self.table.as_ref().is_none_or(|table| table.eq_ignore_ascii_case(&mark.table));
        if !wanted || self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let place = Place { shard: 0, seq: None, time_ms: None, pending: Some("mark") };
        let change = Change {
            node: me.node,
            number: None,
            event: mark.event,
            table: &mark.table,
            columns: &mark.columns,
            values: &mark.key,
        };
        self.change(&place, &change)
    }

    fn prefix(&mut self, place: &Place) -> Result<(), Failure> {
        match (place.pending, place.seq) {
            (Some("mark"), _) => write!(self.out, "marked   ")?,
            (Some(_), _) => write!(self.out, "waiting  {}/-  ", place.shard)?,
            (None, seq) => write!(self.out, "{}/{}  ", place.shard, seq.unwrap_or(0))?,
        }
        if let Some(time) = place.time_ms {
            write!(self.out, "{}  ", utc(time))?;
        }
        Ok(())
    }

    fn change(&mut self, place: &Place, change: &Change<'_>) -> Result<(), Failure> {
        if self.json {
            return super::super::json_line(&mut self.out, &Shown::of(place, change));
        }
        self.prefix(place)?;
        write!(self.out, "node {}", change.node)?;
        if let Some(number) = change.number {
            write!(self.out, " batch {number}")?;
        }
        let fields = Fields { columns: change.columns, values: change.values, most: self.most };
        Ok(writeln!(self.out, "  {} {}  {fields}", change.event, name(change.table))?)
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<Shard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(rename = "FromNodeId")]
    from_node_id: u64,
    #[serde(rename = "Payload")]
    payload: Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Payload<'a> {
    id: Option<u64>,
    r#type: &'static str,
    table_name: &'a str,
    row: JsonRow<'a>,
}

impl<'a> Shown<'a> {
    fn of(place: &Place, change: &Change<'a>) -> Self {
        Self {
            pending: place.pending,
            shard: (place.shard > 0).then_some(place.shard),
            seq: place.seq,
            time: place.time_ms.map(utc),
            from_node_id: change.node,
            payload: Payload {
                id: change.number,
                r#type: change.event,
                table_name: change.table,
                row: JsonRow { columns: change.columns, values: change.values },
            },
        }
    }
}
