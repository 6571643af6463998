//! Of the records of a compacted topic the ones that count: of each key the greatest by rank, of equals the later.
//!
//! `ashi.runtime.kafka.consuming.records.keep_newest`, for what one fetch has brought.

const std = @import("std");
const batches = @import("batches.zig");

/// What a fetch says of one key.
pub const Row = extern struct {
    key_at: u32,
    key_len: u32,
    value_at: u32,
    value_len: u32,
    /// Whether what was known of the key before counts no more, as a record has had no value.
    was_removed: u32,
    /// Whether there is a value.
    has_value: u32,
};

pub const Newest = extern struct {
    rows: u32,
    records: u32,
};

/// A value's first byte says its format; the next eight are its rank, the most significant first.
const RANK_LEN = 8;

/// Reads what fetched batches hold, from the record of offset `begin` on.
///
/// `format`: that of all values; of another one Python must say what is wrong with it, so that the bytes are as good as
/// malformed. `table` and `seed` as for `ashi_scan`.
export fn ashi_newest(
    data: [*]const u8,
    data_len: u32,
    begin: i64,
    format: u32,
    rows: [*]Row,
    max_rows: u32,
    table: [*]u32,
    table_size: u32,
    seed: u64,
    result: *Newest,
) i32 {
    const bytes = data[0..data_len];
    var keeper = Keeper{
        .format = format,
        .keys = .{ .bytes = bytes, .entries = rows[0..max_rows], .table = table[0..table_size], .seed = seed },
    };
    batches.walk(bytes, begin, &keeper) catch |failed| return batches.failureOf(failed);
    result.* = .{ .rows = keeper.keys.count, .records = keeper.records };
    return @backingInt(batches.Failure.none);
}

const Keeper = struct {
    format: u32,
    keys: batches.KeyTable(Row),
    records: u32 = 0,

    pub fn record(self: *Keeper, reader: *batches.Reader, at: usize, offset: i64, timestamp: i64, appended: bool) batches.Failed!void {
        _ = .{ at, offset, timestamp, appended };
        const key = try reader.take(try reader.length() orelse return error.Malformed);
        const key_at = reader.at - key.len;
        const value_len = try reader.length();
        const value = try reader.take(value_len orelse 0);
        const value_at = reader.at - value.len;
        // Headers of rows mean nothing, and there are none.
        self.records += 1;
        const row = &self.keys.entries[try self.keys.find(key, key_at)];
        if (value_len == null) {
            row.was_removed = 1;
            row.has_value = 0;
            return;
        }
        if (value.len <= 1 + RANK_LEN or value[0] != self.format) return error.Malformed;
        if (row.has_value != 0) {
            const known = self.keys.bytes[row.value_at..][0..row.value_len];
            if (std.mem.order(u8, value[1..][0..RANK_LEN], known[1..][0..RANK_LEN]) == .lt) return;
        }
        row.value_at = @intCast(value_at);
        row.value_len = @intCast(value.len);
        row.has_value = 1;
    }
};
