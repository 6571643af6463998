//! The native library of the aggregate stage: what Python's `kernel.py` calls, by C's conventions.
//!
//! - `ashi_scan` (scan.zig) reads fetched batches of topic `trades`. What is not exactly as Ashi's own ingest writes a
//!   trade is only marked, and Python reads it.
//! - `ashi_fold` (fold.zig) adds up what was read. What it may not decide it leaves to Python.
//! - `ashi_newest` (newest.zig) reads fetched batches of a changelog, and keeps the newest row of each key.
//! - `ashi_rows` (rows.zig) reads trades of columns, and `ashi_recount` (recount.zig) adds these up: for `ashi rebuild`.
//!
//! Nothing is allocated here: all memory is the caller's, who gives its sizes. It is built in ReleaseSafe, in which every
//! access is checked; no check of foreign bytes is left to that, as a failed one ends the process.

comptime {
    _ = @import("scan.zig");
    _ = @import("fold.zig");
    _ = @import("newest.zig");
    _ = @import("rows.zig");
    _ = @import("recount.zig");
}
