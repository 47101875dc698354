//! Planted bugs: a simulator that does not find them would not find others.
