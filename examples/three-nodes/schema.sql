PRAGMA journal_mode = WAL;
CREATE TABLE guests (id TEXT PRIMARY KEY, name TEXT NOT NULL, seat TEXT);
