//! A status as a person reads it: the verdict first, then a line a subject.

use std::fmt::Write as _;

use crate::cli::shown::{bytes, count, name};
use crate::status::{Behind, Member, MemberState, ShardStatus, Status, Verdict};

/// With more shards than this, those in step are only counted.
const SHARDS_SHOWN_MAX: usize = 8;

/// The whole text.
pub(super) fn of(status: &Status) -> String {
    let mut lines = Lines::default();
    lines.text.push_str(&name(&verdict(status)));
    lines.text.push('\n');
    lines.line("database", &status.database);
    if let Some(node) = status.node {
        let cluster = status.cluster.as_ref().map_or("in no cluster yet".to_owned(), |id| format!("in cluster {id}"));
        lines.line("node", &format!("{node}, {cluster}"));
    }
    lines.line("host", &host(status));
    lines.line("log", &log(status));
    if status.node.is_none() {
        return lines.text;
    }
    lines.line("to send", &to_send(status));
    lines.line("outbox", &outbox(status));
    if status.host.running {
        let (applied, sent) = (status.host.applied_per_second, status.host.sent_per_second);
        lines.line(
            "speed",
            &format!(
                "{} applied, {} sent a second",
                count(rounded(applied), "change", "changes"),
                count(rounded(sent), "batch", "batches")
            ),
        );
    }
    for (position, clashes) in status.clashes.iter().enumerate() {
        let name = if position == 0 { "clashes" } else { "" };
        lines.line(
            name,
            &format!("{} over {}: {} says {}", clashes.count, clashes.cause, clashes.resolver, clashes.verdict),
        );
    }
    if status.clashes.is_empty() {
        lines.line("clashes", "none");
    }
    if status.sliced.units > 0 {
        let (units, changes) =
            (count(status.sliced.units, "unit", "units"), count(status.sliced.changes, "change", "changes"));
        lines.line("in slices", &format!("{units} above `atomic_max`, {changes}"));
    }
    for shard in &status.sliced.under_way {
        lines.line("in slices", &format!("a unit of shard {shard} is being applied; a part of it shows already"));
    }
    if !status.tables.is_empty() {
        lines.line("tables", &status.tables.join(", "));
    }
    for (table, reason) in &status.refused {
        lines.line("left out", &format!("`{table}`: {reason}"));
    }
    for (part, trouble) in &status.troubles {
        let how = if trouble.paused { "paused" } else { "failing" };
        let when = if status.host.running { "for" } else { "at the end, for" };
        lines.line(how, &format!("{part} {when} {}: {}", age(trouble.seconds), trouble.reason));
    }
    for (part, words) in &status.degraded {
        lines.line("degraded", &format!("{part}: {words}"));
    }
    if let Some(last) = &status.last_error {
        let seconds = status.last_error_seconds_ago.unwrap_or_default();
        lines.line("last error", &format!("{} ago, {}: {}", age(seconds), last.part, last.error));
    }
    let mut text = lines.text;
    shards(&mut text, &status.shards);
    members(&mut text, &status.members);
    text
}

/// Lines of a name and what is to be said of it.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, subject: &str, words: &str) {
        let _ = writeln!(self.text, "  {subject:<10} {}", name(words));
    }
}

fn verdict(status: &Status) -> String {
    let word = match status.verdict {
        Verdict::InStep => "in step",
        Verdict::Behind => "behind",
        Verdict::Paused => "paused",
        Verdict::Failing => "failing",
        Verdict::Starting => "starting",
        Verdict::NotRunning => "not running",
        Verdict::NeverRan => "not running: nothing of Antiphon's is in this database",
    };
    match &status.why {
        Some(why) => format!("{word}: {why}"),
        None => word.to_owned(),
    }
}

fn host(status: &Status) -> String {
    let host = &status.host;
    let mut text = match (host.running, host.ended_seconds_ago) {
        (true, _) => match (host.pid, host.started_seconds_ago, &host.version) {
            (Some(pid), Some(seconds), Some(version)) => {
                format!("runs for {}, process {pid}, version {version}", age(seconds))
            }
            _ => "runs".to_owned(),
        },
        (false, Some(seconds)) => format!("ended {} ago", age(seconds)),
        // Its last report is still there, and does not say that it ended.
        (false, None) if host.pid.is_some() => "ended without a word, as by a kill".to_owned(),
        (false, None) => "does not run".to_owned(),
    };
    if let Some(error) = &host.report_error {
        let _ = write!(text, "; {error}");
    } else if let (false, Some(seconds)) = (host.running, host.report_seconds_ago) {
        let _ = write!(text, "; its last report is {} old", age(seconds));
    }
    text
}

fn log(status: &Status) -> String {
    match (&status.log.error, status.log.found) {
        (Some(error), _) => format!("cannot be read: {error}"),
        (None, true) => status.log.directory.clone(),
        (None, false) => format!("there is none in {}", status.log.directory),
    }
}

fn to_send(status: &Status) -> String {
    let pending = &status.pending;
    let mut parts = Vec::new();
    if pending.marks > 0 {
        parts.push(format!("{} marked", count(pending.marks, "row", "rows")));
    }
    if pending.batches > 0 {
        let changes = pending.changes.map_or("many changes".to_owned(), |changes| count(changes, "change", "changes"));
        let oldest = pending.seconds.map_or(String::new(), |seconds| format!(", the oldest for {}", age(seconds)));
        parts.push(format!(
            "{changes} in {} ({}){oldest}",
            count(pending.batches, "batch", "batches"),
            bytes(pending.bytes)
        ));
    }
    if parts.is_empty() { "nothing waits".to_owned() } else { parts.join("; ") }
}

fn outbox(status: &Status) -> String {
    let outbox = &status.outbox;
    let oldest = outbox.seconds.map_or(String::new(), |seconds| format!(", the oldest {} old", age(seconds)));
    format!("{}, {}{oldest}", count(outbox.batches, "batch", "batches"), bytes(outbox.bytes))
}

fn shards(text: &mut String, shards: &[ShardStatus]) {
    let is_behind = |shard: &&ShardStatus| shard.behind.is_some() || shard.end.is_none();
    let all = shards.len() <= SHARDS_SHOWN_MAX;
    let shown: Vec<&ShardStatus> = shards.iter().filter(|shard| all || is_behind(shard)).collect();
    let rest = shards.len() - shown.len();
    let rows = shown.iter().map(|shard| {
        let end = shard.end.map_or("?".to_owned(), |end| end.to_string());
        let behind = match (&shard.behind, shard.end) {
            (Some(behind), _) => far(behind),
            (None, Some(_)) => "-".to_owned(),
            (None, None) => "?".to_owned(),
        };
        vec![shard.shard.to_string(), shard.position.to_string(), end, behind]
    });
    table(text, &[("shard", true), ("position", true), ("log end", true), ("behind", false)], rows.collect());
    if rest > 0 {
        let _ = writeln!(text, "  and {} in step", count(rest as u64, "shard", "shards"));
    }
}

fn far(behind: &Behind) -> String {
    let changes = behind.changes.map_or("many changes".to_owned(), |changes| count(changes, "change", "changes"));
    format!("{}, {changes}, {}", count(behind.entries, "entry", "entries"), age(behind.seconds))
}

fn members(text: &mut String, members: &[Member]) {
    let rows = members.iter().map(|member| {
        let this = if member.this { " (this)" } else { "" };
        let state = match member.state {
            MemberState::Here => "here",
            MemberState::Away => "away",
            MemberState::Left => "left",
        };
        let behind = match member.behind {
            Some(0) => "-".to_owned(),
            Some(entries) => count(entries, "entry", "entries"),
            None => "?".to_owned(),
        };
        let other = match member.other_tables.as_slice() {
            [] => String::new(),
            tables => format!("other tables: {}", name(&tables.join(", "))),
        };
        vec![
            format!("{}{this}", member.node),
            state.to_owned(),
            format!("{} ago", age(member.seen_seconds_ago)),
            behind,
            other,
        ]
    });
    table(
        text,
        &[("member", false), ("state", false), ("heard of", false), ("was behind", false), ("", false)],
        rows.collect(),
    );
}

/// Aligned columns under their names, after a blank line; nothing at all without rows.
fn table(text: &mut String, columns: &[(&str, bool)], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let head: Vec<String> = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    text.push('\n');
    for row in &rows {
        let mut line = String::from(" ");
        for ((cell, width), (_, right)) in row.iter().zip(&widths).zip(columns) {
            let _ = if *right { write!(line, " {cell:>width$} ") } else { write!(line, " {cell:<width$} ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// A rounded number of things.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a speed is small and not negative")]
fn rounded(speed: f64) -> u64 {
    speed.max(0.0).round() as u64
}

/// A time in the unit that fits it.
fn age(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LastError;
    use crate::status::{Clashes, Host, Log, Outbox, Pending, Trouble};
    use insta::assert_snapshot;

    fn running() -> Status {
        let shard = |shard, position| ShardStatus { shard, position, end: Some(position), behind: None };
        Status {
            verdict: Verdict::InStep,
            well: true,
            database: "/data/app.db".to_owned(),
            node: Some(7),
            incarnation: Some(70),
            cluster: Some("00ff".to_owned()),
            host: Host {
                running: true,
                pid: Some(4711),
                version: Some("0.1.0".to_owned()),
                started_seconds_ago: Some(4000.0),
                report_seconds_ago: Some(1.0),
                applied_per_second: 1.0,
                sent_per_second: 0.0,
                ..Host::default()
            },
            log: Log { directory: "/data/log".to_owned(), found: true, error: None },
            shards: vec![shard(1, 120), shard(2, 7)],
            outbox: Outbox { batches: 12, bytes: 3456, seconds: Some(86_000.0) },
            members: vec![
                Member { node: 7, this: true, seen_seconds_ago: 2.0, behind: Some(0), ..Member::default() },
                Member { node: 1234, seen_seconds_ago: 4.9, behind: Some(3), ..Member::default() },
            ],
            tables: vec!["guests".to_owned(), "orders".to_owned()],
            ..Status::default()
        }
    }

    #[test]
    fn in_step() {
        assert_snapshot!(of(&running()), @r#"
        in step
          database   /data/app.db
          node       7, in cluster 00ff
          host       runs for 67 min, process 4711, version 0.1.0
          log        /data/log
          to send    nothing waits
          outbox     12 batches, 3.3 KiB, the oldest 24 h old
          speed      1 change applied, 0 batches sent a second
          clashes    none
          tables     guests, orders

          shard  position  log end  behind
              1       120      120  -
              2         7        7  -

          member    state  heard of   was behind
          7 (this)  here   2.0 s ago  -
          1234      here   4.9 s ago  3 entries
        "#);
    }

    #[test]
    fn behind_with_all_that_can_wait() {
        let mut status = Status { verdict: Verdict::Behind, ..running() };
        status.pending = Pending { marks: 1, batches: 2, changes: Some(5), bytes: 1_500_000, seconds: Some(0.31) };
        status.shards[0].end = Some(1121);
        status.shards[0].behind = Some(Behind { entries: 1001, changes: None, seconds: 12.0 });
        status.shards[1].end = Some(8);
        status.shards[1].behind = Some(Behind { entries: 1, changes: Some(1), seconds: 0.04 });
        status.clashes = vec![
            Clashes {
                resolver: "last-write-wins".to_owned(),
                verdict: "take".to_owned(),
                cause: "same-key".to_owned(),
                count: 3,
            },
            Clashes {
                resolver: "counter".to_owned(),
                verdict: "merge".to_owned(),
                cause: "same-key".to_owned(),
                count: 1,
            },
        ];
        assert_snapshot!(of(&status), @r#"
        behind
          database   /data/app.db
          node       7, in cluster 00ff
          host       runs for 67 min, process 4711, version 0.1.0
          log        /data/log
          to send    1 row marked; 5 changes in 2 batches (1.4 MiB), the oldest for 0.3 s
          outbox     12 batches, 3.3 KiB, the oldest 24 h old
          speed      1 change applied, 0 batches sent a second
          clashes    3 over same-key: last-write-wins says take
                     1 over same-key: counter says merge
          tables     guests, orders

          shard  position  log end  behind
              1       120     1121  1001 entries, many changes, 12 s
              2         7        8  1 entry, 1 change, 0.0 s

          member    state  heard of   was behind
          7 (this)  here   2.0 s ago  -
          1234      here   4.9 s ago  3 entries
        "#);
    }

    #[test]
    fn paused_and_failing_with_members_away() {
        let mut status = Status { verdict: Verdict::Paused, well: false, ..running() };
        let reason = "entry 5: it sets column `e\u{7}`";
        status.why = Some(format!("shard 2: {reason}"));
        let trouble = |paused, reason: &str, seconds| Trouble { paused, reason: reason.to_owned(), seconds };
        status.troubles.insert("shard 2".to_owned(), trouble(true, reason, 100.0));
        status.troubles.insert("publish".to_owned(), trouble(false, "the disk is full", 200_000.0));
        status.last_error =
            Some(LastError { part: "publish".to_owned(), error: "the disk is full".to_owned(), at_ms: 5 });
        status.last_error_seconds_ago = Some(3.0);
        status.refused.insert("log".to_owned(), "it has no primary key".to_owned());
        status.members[1] = Member {
            node: 1234,
            state: MemberState::Away,
            seen_seconds_ago: 500.0,
            behind: Some(1),
            other_tables: vec!["guests".to_owned()],
            ..Member::default()
        };
        status.members.push(Member {
            node: 9,
            state: MemberState::Left,
            seen_seconds_ago: 5e6,
            behind: Some(17),
            ..Member::default()
        });
        assert_snapshot!(of(&status), @r#"
        paused: shard 2: entry 5: it sets column `e\u{7}`
          database   /data/app.db
          node       7, in cluster 00ff
          host       runs for 67 min, process 4711, version 0.1.0
          log        /data/log
          to send    nothing waits
          outbox     12 batches, 3.3 KiB, the oldest 24 h old
          speed      1 change applied, 0 batches sent a second
          clashes    none
          tables     guests, orders
          left out   `log`: it has no primary key
          failing    publish for 2 d: the disk is full
          paused     shard 2 for 100 s: entry 5: it sets column `e\u{7}`
          last error 3.0 s ago, publish: the disk is full

          shard  position  log end  behind
              1       120      120  -
              2         7        7  -

          member    state  heard of   was behind
          7 (this)  here   2.0 s ago  -
          1234      away   8 min ago  1 entry     other tables: guests
          9         left   58 d ago   17 entries
        "#);
    }

    #[test]
    fn not_running_after_an_error() {
        let mut status = Status { verdict: Verdict::NotRunning, well: false, ..running() };
        status.why = Some("it ended: the log is broken".to_owned());
        status.host.running = false;
        status.host.ended_seconds_ago = Some(60.0);
        status.host.report_seconds_ago = Some(60.0);
        status.log.error = Some("`/data/log/log.db`: file is not a database".to_owned());
        status.shards = vec![ShardStatus { shard: 1, position: 120, ..ShardStatus::default() }];
        status.members.clear();
        assert_snapshot!(of(&status), @r#"
        not running: it ended: the log is broken
          database   /data/app.db
          node       7, in cluster 00ff
          host       ended 60 s ago; its last report is 60 s old
          log        cannot be read: `/data/log/log.db`: file is not a database
          to send    nothing waits
          outbox     12 batches, 3.3 KiB, the oldest 24 h old
          clashes    none
          tables     guests, orders

          shard  position  log end  behind
              1       120        ?  ?
        "#);
    }

    #[test]
    fn killed() {
        let mut status = Status { verdict: Verdict::NotRunning, well: false, ..running() };
        status.host.running = false;
        assert_snapshot!(host(&status), @"ended without a word, as by a kill; its last report is 1.0 s old");
    }

    #[test]
    fn many_shards_in_step_are_counted() {
        let mut status = running();
        status.shards = (1..=20).map(|shard| ShardStatus { shard, end: Some(0), ..ShardStatus::default() }).collect();
        status.shards[11].end = Some(2);
        status.shards[11].behind = Some(Behind { entries: 2, changes: Some(10), seconds: 3.0 });
        let mut text = String::new();
        shards(&mut text, &status.shards);
        assert_snapshot!(text, @r#"
        shard  position  log end  behind
           12         0        2  2 entries, 10 changes, 3.0 s
        and 19 shards in step
        "#);
    }
}
