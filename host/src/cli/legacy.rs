//! Flags as HarmonyLite's users type them, rewritten to our commands before anything else looks at them.
//!
//! They follow Go's rules: one dash or two, `-name value` or `-name=value`, a switch alone or with `=true`. Only a
//! command line that begins with such a flag is touched; one that begins with a command of ours is ours.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::failure::{Failure, Kind};
use crate::words::did_you_mean;

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

/// A flag: its name, what follows it, and if it is not built, what stands in its place.
struct Flag {
    name: &'static str,
    takes: Takes,
    instead: Option<&'static str>,
}

const fn flag(name: &'static str, takes: Takes, instead: Option<&'static str>) -> Flag {
    Flag { name, takes, instead }
}

const LEAVES: &str =
    "name leaf servers in a file of the NATS server's own, `server_config` under `[nats]`: `leafnodes { … }`";

const FLAGS: &[Flag] = &[
    flag("config", Takes::Value, None),
    flag("node-id", Takes::Value, None),
    flag("cleanup", Takes::Nothing, None),
    flag("version", Takes::Nothing, None),
    flag("save-snapshot", Takes::Nothing, None),
    flag(
        "schema-status",
        Takes::Nothing,
        Some("`antiphon schema status` says which node has which version of which table"),
    ),
    flag("schema-status-cluster", Takes::Nothing, Some("`antiphon schema status` says it of all nodes")),
    flag("cluster-addr", Takes::Value, None),
    flag("cluster-peers", Takes::Value, None),
    flag("leaf-servers", Takes::Value, Some(LEAVES)),
    flag("pprof", Takes::Value, Some("there is no profiler inside; use `perf record -g antiphon run …`")),
];

/// Rewrites a command line that begins with a flag of theirs; any other comes back as it was.
///
/// # Errors
/// If the flags make no sense, or one is not part of this version.
pub fn rewrite(args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some((program, flags)) = args.split_first() else { return Ok(args) };
    let theirs = flags.first().and_then(|first| split(first)).and_then(|(name, _)| known(name));
    if theirs.is_none() {
        return Ok(args);
    }
    let mut rewritten = vec![program.clone()];
    rewritten.extend(Said::read(flags)?.into_ours());
    Ok(rewritten)
}

/// What their flags say.
#[derive(Default)]
struct Said {
    config: Option<OsString>,
    node_id: Option<OsString>,
    cluster_addr: Option<OsString>,
    cluster_peers: Option<OsString>,
    cleanup: bool,
    save_snapshot: bool,
    version: bool,
}

impl Said {
    fn read(args: &[OsString]) -> Result<Self, Failure> {
        let mut said = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, value) = split(arg).ok_or_else(|| {
                Failure::usage(format!("`{}` is one argument too many among flags", arg.display()))
                    .hint("see `antiphon --help` for the commands")
            })?;
            let flag = known(name).ok_or_else(|| {
                let names = FLAGS.iter().map(|flag| flag.name);
                let meant = name.to_str().map(|name| did_you_mean(name, names)).unwrap_or_default();
                Failure::usage(format!("there is no flag `{}`{meant}", arg.display())).hint("see `antiphon --help`")
            })?;
            let (value, on) = match flag.takes {
                Takes::Value => {
                    let value = value.or_else(|| args.next().map(OsString::as_os_str));
                    let value = value.ok_or_else(|| {
                        Failure::usage(format!("the flag `-{}` needs a value", flag.name)).hint("see `antiphon --help`")
                    })?;
                    (value.to_owned(), !value.is_empty())
                }
                Takes::Nothing => (OsString::new(), switch(flag.name, value)?),
            };
            if !on {
                continue; // said, and asking for nothing
            }
            if let Some(instead) = flag.instead {
                let text = format!("the flag `-{}` is not part of this version", flag.name);
                return Err(Failure::new(Kind::NotBuilt, text).hint(instead));
            }
            match flag.name {
                "config" => said.config = Some(value),
                "node-id" => said.node_id = Some(value),
                "cluster-addr" => said.cluster_addr = Some(value),
                "cluster-peers" => said.cluster_peers = Some(value),
                "cleanup" => said.cleanup = true,
                "save-snapshot" => said.save_snapshot = true,
                _ => said.version = true,
            }
        }
        Ok(said)
    }

    fn into_ours(self) -> Vec<OsString> {
        if self.version {
            return vec!["--version".into()];
        }
        let (verb, runs): (&[&str], bool) = match (self.cleanup, self.save_snapshot) {
            (true, _) => (&["cleanup"], false),
            (false, true) => (&["snapshot", "create"], false),
            (false, false) => (&["run"], true),
        };
        let mut ours: Vec<OsString> = verb.iter().map(OsString::from).collect();
        if let Some(file) = self.config {
            ours.extend(["--config".into(), file]);
        }
        // Only a node that starts depends on these.
        let flags = [
            ("--node-id", self.node_id),
            ("--cluster-addr", self.cluster_addr),
            ("--cluster-peers", self.cluster_peers),
        ];
        for (flag, value) in flags.into_iter().filter(|_| runs) {
            if let Some(value) = value {
                ours.extend([flag.into(), value]);
            }
        }
        ours
    }
}

fn known(name: &OsStr) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| name == flag.name)
}

/// `-name=value` or `--name` as name and value; `None` if it is no flag.
fn split(arg: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = arg.as_bytes();
    let body = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
    let mut halves = body.splitn(2, |&byte| byte == b'=');
    let name = halves.next().filter(|name| !name.is_empty())?;
    Some((OsStr::from_bytes(name), halves.next().map(OsStr::from_bytes)))
}

fn switch(name: &str, value: Option<&OsStr>) -> Result<bool, Failure> {
    match value.map(OsStr::to_str) {
        None | Some(Some("1" | "t" | "T" | "true" | "TRUE" | "True")) => Ok(true),
        Some(Some("0" | "f" | "F" | "false" | "FALSE" | "False")) => Ok(false),
        Some(_) => Err(Failure::usage(format!("the flag `-{name}` is a switch: it takes `true` or `false`"))
            .hint("write it alone to switch it on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &str) -> Result<String, Failure> {
        let args = std::iter::once("antiphon").chain(args.split_whitespace()).map(OsString::from).collect();
        let rewritten = rewrite(args)?;
        let words: Vec<_> = rewritten.iter().skip(1).map(|word| word.to_str().unwrap()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn their_flags_become_our_commands() {
        for (theirs, ours) in [
            ("-config a.toml", "run --config a.toml"),
            ("-config=a.toml", "run --config a.toml"),
            ("--config a.toml", "run --config a.toml"),
            ("--config=a=b.toml", "run --config a=b.toml"),
            ("-config a.toml -save-snapshot -node-id 7", "snapshot create --config a.toml"),
            ("-config a.toml -node-id 7", "run --config a.toml --node-id 7"),
            ("-node-id=7", "run --node-id 7"),
            ("-config a.toml -cleanup", "cleanup --config a.toml"),
            ("-cleanup -config a.toml -node-id 3", "cleanup --config a.toml"),
            ("-cleanup=false -config a.toml", "run --config a.toml"),
            ("-cleanup=T", "cleanup"),
            ("-version", "--version"),
            ("--version", "--version"),
            ("-config a.toml -version", "--version"),
            (
                "-config a.toml -cluster-addr 127.0.0.1:4221 -cluster-peers=nats://h:4222,nats://i:4222",
                "run --config a.toml --cluster-addr 127.0.0.1:4221 --cluster-peers nats://h:4222,nats://i:4222",
            ),
            ("-cleanup -cluster-addr 127.0.0.1:4221", "cleanup"),
            ("-config a.toml -save-snapshot=false -cluster-addr=", "run --config a.toml"),
        ] {
            assert_eq!(line(theirs).unwrap(), ours, "{theirs}");
        }
    }

    #[test]
    fn our_own_command_lines_stay_as_they_are() {
        for ours in ["", "run app.db", "run --config a.toml", "--help", "-h", "-V", "-x", "cleanup -config", "-", "--"]
        {
            assert_eq!(line(ours).unwrap(), ours);
        }
    }

    #[test]
    fn what_is_not_built_names_what_replaces_it() {
        for (theirs, name, instead) in [
            ("-schema-status", "schema-status", "antiphon schema status"),
            ("-schema-status-cluster", "schema-status-cluster", "antiphon schema status"),
            ("-leaf-servers x", "leaf-servers", "`server_config`"),
            ("-pprof 127.0.0.1:6060", "pprof", "perf"),
        ] {
            let failure = line(theirs).unwrap_err();
            assert_eq!(failure.kind(), Kind::NotBuilt);
            assert_eq!(failure.to_string(), format!("the flag `-{name}` is not part of this version"));
            assert!(failure.hints()[0].contains(instead), "{theirs}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (theirs, sentence) in [
            ("-config", "the flag `-config` needs a value"),
            ("-config a.toml -bogus", "there is no flag `-bogus`"),
            ("-config a.toml -claenup", "there is no flag `-claenup`; did you mean `cleanup`?"),
            ("-config a.toml app.db", "`app.db` is one argument too many among flags"),
            ("-cleanup=maybe", "the flag `-cleanup` is a switch: it takes `true` or `false`"),
        ] {
            let failure = line(theirs).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage);
            assert_eq!(failure.to_string(), sentence);
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_survives() {
        let path = OsStr::from_bytes(b"-config=\xff.toml").to_owned();
        let rewritten = rewrite(vec!["antiphon".into(), path]).unwrap();
        assert_eq!(rewritten[3].as_bytes(), b"\xff.toml");
    }
}
