//! The resolver `node-priority`: the change of the node that is named first stands.
//!
//! # Laws, version 1
//! 1. The setting `order` names nodes, joined by commas, the strongest first. Names compare as in `newest-wins`, so
//!    that `07` is `7`. A node that is not named ranks behind all that are. A name that no node has counts for
//!    nothing, for the node may come later. A name that comes twice, an empty one, and any other setting are refused.
//! 2. A clash over a key is answered `keep` if the current stamp's node ranks before the incoming one's, else `take`:
//!    of equal ranks the later in the log wins.
//! 3. A stamp with clock 0 is that of a change whose writer was forgotten, and ranks as a node that is not named.
//! 4. A row that is gone competes by its stamp like any other.
//! 5. A clash over a UNIQUE index is answered `take`.
//! 6. It sees stamps and no current rows.
//!
//! Any change of these answers needs the next version.

use resolver::{Clash, Info, Needs, Node, Policy, Settings, Stamp, Table, Verdict, names};

resolver::component!(NodePriority);

const NAME: &str = "node-priority";

struct NodePriority {
    /// The place of each node in the order; behind all places for one that is not named.
    ranks: Vec<usize>,
    last: usize,
}

impl Policy for NodePriority {
    fn describe() -> Info {
        Info {
            name: NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            description: "the change of the node that is named first wins".into(),
            settings_schema: r#"{
  "type": "object",
  "properties": {
    "order": { "type": "string", "description": "node numbers joined by commas, the strongest first" }
  },
  "required": ["order"],
  "additionalProperties": false
}"#
            .into(),
            laws: 1,
        }
    }

    fn needs() -> Needs {
        Needs::STAMPS
    }

    fn configure(settings: &Settings, nodes: &[String], _: &[Table]) -> Result<Self, String> {
        let named = names(NAME, "order", settings)?;
        let order = Node::all(&named);
        for (position, node) in order.iter().enumerate() {
            if order[..position].contains(node) {
                return Err(format!("the setting `order` names node `{}` twice", named[position]));
            }
        }
        let last = order.len();
        let rank = |node: &Node| order.iter().position(|name| name == node).unwrap_or(last);
        Ok(Self { ranks: Node::all(nodes).iter().map(rank).collect(), last })
    }

    fn decide(&self, clash: Clash) -> Result<Verdict, String> {
        let stands = self.rank(clash.current.stamp)? < self.rank(clash.incoming.stamp)?;
        Ok(if stands { Verdict::Keep } else { Verdict::Take })
    }
}

impl NodePriority {
    fn rank(&self, stamp: Stamp) -> Result<usize, String> {
        if stamp.clock == 0 {
            return Ok(self.last);
        }
        self.ranks.get(stamp.node as usize).copied().ok_or_else(|| format!("there is no node {}", stamp.node))
    }
}
