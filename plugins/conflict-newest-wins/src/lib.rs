//! The resolver `newest-wins`: the change with the later stamp stands, wherever it is in the log.
//!
//! # Laws, version 1
//! 1. A clash over a key is answered `take` if the incoming stamp is later than the current one, else `keep`.
//! 2. The stamp with the larger clock is later. Of equal clocks, the one whose node's name is larger is: names are
//!    looked up in the list given to `configure`, numbers come before texts, numbers compare by their value and texts
//!    by their bytes. The index in that list and the position in the log decide nothing.
//! 3. Clock 0 is the stamp of a change whose writer was forgotten: earlier than any other, and not later than itself.
//! 4. A row that is gone competes by its stamp like any other.
//! 5. A clash over a UNIQUE index is answered `take`.
//! 6. It sees stamps and no current rows, and has no settings.
//!
//! So of any set of changes the latest stands, in whatever order they come. Any change of these answers needs the next
//! version.

use resolver::{Clash, Info, NO_SETTINGS, Needs, Node, Policy, Settings, Stamp, Table, Verdict, none};

resolver::component!(NewestWins);

const NAME: &str = "newest-wins";

struct NewestWins {
    nodes: Vec<Node>,
}

impl Policy for NewestWins {
    fn describe() -> Info {
        Info {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "the change that was made last wins, by hybrid logical clocks".into(),
            settings_schema: NO_SETTINGS.into(),
            laws: 1,
        }
    }

    fn needs() -> Needs {
        Needs::STAMPS
    }

    fn configure(settings: &Settings, nodes: &[String], _: &[Table]) -> Result<Self, String> {
        none(NAME, settings)?;
        Ok(Self { nodes: Node::all(nodes) })
    }

    fn decide(&self, clash: Clash) -> Result<Verdict, String> {
        let later = self.is_later(clash.incoming.stamp, clash.current.stamp)?;
        Ok(if later { Verdict::Take } else { Verdict::Keep })
    }
}

impl NewestWins {
    fn is_later(&self, one: Stamp, other: Stamp) -> Result<bool, String> {
        if one.clock != other.clock || one.clock == 0 {
            return Ok(one.clock > other.clock);
        }
        Ok(self.node(one)? > self.node(other)?)
    }

    fn node(&self, stamp: Stamp) -> Result<&Node, String> {
        self.nodes.get(stamp.node as usize).ok_or_else(|| format!("there is no node {}", stamp.node))
    }
}
