//! Adds rows of one symbol up by finest window, in the order of the log: of copies the first one counts.
//!
//! For `ashi rebuild`, by the rules that `ashi_audit.sources.lake` has: all trades count, however late they came.

const std = @import("std");
const sums = @import("sums.zig");
const Verdict = @import("interface.zig").Verdict;
const Row = @import("rows.zig").Row;

/// What the trades of one finest window add up to. Rows: the first and the last by rank, those of the highest and the
/// lowest price.
const Sum = extern struct {
    volume: u128,
    quote: u128,
    buy_volume: u128,
    buy_quote: u128,
    open_time: i64,
    /// The greatest of theirs.
    offset: i64,
    count: u32,
    first: u32,
    last: u32,
    high: u32,
    low: u32,
    volume_scale: u8,
    quote_scale: u8,
    buy_volume_scale: u8,
    buy_quote_scale: u8,
    reserved: [2]u32,
};

const Recount = extern struct {
    rows: [*]Row,
    text: [*]const u8,
    /// Offsets, ascending: those are given back by themselves, and not added up.
    late: [*]const i64,
    /// One for each row.
    keys: [*]u64,
    /// A power of two of places, at least twice as many as rows.
    table: [*]u32,
    totals: [*]Sum,
    late_out: [*]u32,
    finest_us: i64,
    copies_apart_us: i64,
    /// What was traded in [begin, end) is added up; what was not may still show what is a copy.
    begin: i64,
    end: i64,
    /// What stands in the log from `unread_begin` on, and before `unread_end`, is not added up either.
    unread_begin: i64,
    unread_end: i64,
    seed: u64,
    rows_len: u32,
    text_len: u32,
    late_len: u32,
    table_len: u32,
    totals_len: u32,
    late_out_len: u32,
};

const Recounted = extern struct {
    /// The greatest `traded_at` of what was added up or is late, and the least.
    clock: i64,
    first: i64,
    counted: u32,
    totals: u32,
    late: u32,
    verdict: u32,
};

/// A row's place that is none, and an entry of the table that is free.
const NONE: u32 = 0xffff_ffff;

export fn ashi_recount(in: *const Recount, out: *Recounted) void {
    out.* = std.mem.zeroes(Recounted);
    out.first = std.math.maxInt(i64);
    var counter = Counter{
        .in = in,
        .out = out,
        .rows = in.rows[0..in.rows_len],
        .text = in.text[0..in.text_len],
        .late = in.late[0..in.late_len],
        .keys = in.keys[0..in.rows_len],
        .table = in.table[0..in.table_len],
        .totals = in.totals[0..in.totals_len],
    };
    const verdict: Verdict = if (counter.run()) .folded else |undecided| switch (undecided) {
        error.Left => .left,
        error.Room => .room,
        error.Overflow => .overflow,
    };
    out.verdict = @backingInt(verdict);
}

const Undecided = error{ Left, Room } || sums.Overflow;

const Counter = struct {
    in: *const Recount,
    out: *Recounted,
    rows: []Row,
    text: []const u8,
    late: []const i64,
    keys: []u64,
    table: []u32,
    totals: []Sum,
    /// Of a key, so many bits are the row's place.
    place_bits: u6 = 0,
    /// The sum of the row before.
    last: ?*Sum = null,

    fn run(self: *Counter) Undecided!void {
        try self.order();
        if (!self.ascends()) self.markCopies();
        @memset(self.table, NONE);
        for (self.keys) |key| {
            const place = self.placeOf(key);
            const row = &self.rows[place];
            if (row.is_copy != 0) continue;
            if (row.traded_at < self.in.begin or row.traded_at >= self.in.end) continue;
            if (row.offset >= self.in.unread_begin and row.offset < self.in.unread_end) continue;
            self.out.clock = @max(self.out.clock, row.traded_at);
            self.out.first = @min(self.out.first, row.traded_at);
            if (self.isLate(row.offset)) {
                if (self.out.late >= self.in.late_out_len) return error.Room;
                self.in.late_out[self.out.late] = place;
                self.out.late += 1;
                continue;
            }
            self.out.counted += 1;
            try self.add(try self.sumOf(row, place), row, place);
        }
    }

    fn placeOf(self: *const Counter, key: u64) u32 {
        return @intCast(key & ((@as(u64, 1) << self.place_bits) - 1));
    }

    /// Let the keys name the rows in the order of the log.
    fn order(self: *Counter) Undecided!void {
        if (self.rows.len == 0) return;
        self.place_bits = 32 - @as(u6, @clz(@as(u32, @intCast(self.rows.len))));
        var least: i64 = std.math.maxInt(i64);
        var greatest: i64 = 0;
        for (self.rows) |*row| {
            // A symbol whose partition has changed: Python knows what comes first.
            if (row.partition != self.rows[0].partition) return error.Left;
            least = @min(least, row.offset);
            greatest = @max(greatest, row.offset);
            row.is_copy = 0;
        }
        const most = @as(u64, 1) << @intCast(63 - @as(u32, self.place_bits));
        if (@as(u64, @intCast(greatest - least)) >= most) return error.Room;
        var sorted = true;
        var before: i64 = -1;
        for (self.rows, self.keys, 0..) |*row, *key, place| {
            if (row.offset <= before) sorted = false;
            before = row.offset;
            key.* = @as(u64, @intCast(row.offset - least)) << self.place_bits | place;
        }
        if (sorted) return;
        std.sort.pdq(u64, self.keys, {}, std.sort.asc(u64));
        for (self.keys[1..], self.keys[0 .. self.keys.len - 1]) |key, previous| {
            if (key >> self.place_bits == previous >> self.place_bits) return error.Left;
        }
    }

    /// Whether ids only ascend, so that none can be a copy.
    fn ascends(self: *const Counter) bool {
        var greatest: i64 = -1;
        for (self.keys) |key| {
            const row = &self.rows[self.placeOf(key)];
            if (row.id_is_number == 0 or @as(i64, @intCast(row.id)) <= greatest) return false;
            greatest = @intCast(row.id);
        }
        return true;
    }

    /// Mark each row whose id was counted before about the same time. As `CandleRules.are_copies` in `ashi_audit.rules`.
    fn markCopies(self: *Counter) void {
        @memset(self.table, NONE);
        const mask = self.table.len - 1;
        for (self.keys) |key| {
            const place = self.placeOf(key);
            const row = &self.rows[place];
            const id = self.idOf(row);
            var slot = std.hash.Wyhash.hash(self.in.seed, id) & mask;
            while (self.table[slot] != NONE) : (slot = (slot + 1) & mask) {
                if (std.mem.eql(u8, self.idOf(&self.rows[self.table[slot]]), id)) break;
            }
            const first = self.openOf(row.traded_at - self.in.copies_apart_us);
            const last = self.openOf(row.traded_at + self.in.copies_apart_us);
            var before = self.table[slot];
            while (before != NONE) : (before = self.rows[before].before) {
                const open_time = self.openOf(self.rows[before].traded_at);
                if (first <= open_time and open_time <= last) break;
            }
            if (before != NONE) {
                row.is_copy = 1;
            } else {
                row.before = self.table[slot];
                self.table[slot] = place;
            }
        }
    }

    fn idOf(self: *const Counter, row: *const Row) []const u8 {
        return self.text[row.id_at..][0..row.id_len];
    }

    fn openOf(self: *const Counter, time: i64) i64 {
        return time - @mod(time, self.in.finest_us);
    }

    fn isLate(self: *const Counter, offset: i64) bool {
        var low: usize = 0;
        var high: usize = self.late.len;
        while (low < high) {
            const middle = low + (high - low) / 2;
            if (self.late[middle] < offset) low = middle + 1 else high = middle;
        }
        return low < self.late.len and self.late[low] == offset;
    }

    fn sumOf(self: *Counter, row: *const Row, place: u32) Undecided!*Sum {
        const open_time = self.openOf(row.traded_at);
        if (self.last) |sum| {
            if (sum.open_time == open_time) return sum;
        }
        const mask = self.table.len - 1;
        var slot = std.hash.Wyhash.hash(self.in.seed, std.mem.asBytes(&open_time)) & mask;
        while (self.table[slot] != NONE) : (slot = (slot + 1) & mask) {
            if (self.totals[self.table[slot]].open_time == open_time) break;
        }
        if (self.table[slot] == NONE) {
            if (self.out.totals >= self.totals.len) return error.Room;
            const sum = &self.totals[self.out.totals];
            sum.* = std.mem.zeroes(Sum);
            sum.open_time = open_time;
            sum.first = place;
            sum.last = place;
            sum.high = place;
            sum.low = place;
            self.table[slot] = self.out.totals;
            self.out.totals += 1;
        }
        self.last = &self.totals[self.table[slot]];
        return self.last.?;
    }

    fn add(self: *Counter, sum: *Sum, row: *const Row, place: u32) Undecided!void {
        if (sum.count > 0) {
            if (self.ranksBefore(row, &self.rows[sum.first])) sum.first = place;
            if (self.ranksBefore(&self.rows[sum.last], row)) sum.last = place;
            if (sums.isLess(@as(*const Row, &self.rows[sum.high]), row)) sum.high = place;
            if (sums.isLess(row, @as(*const Row, &self.rows[sum.low]))) sum.low = place;
        }
        try sums.addTrade(sum, row);
        sum.offset = @max(sum.offset, row.offset);
    }

    /// By time, sequence and id; of two that are equal in all of these one is a copy.
    fn ranksBefore(self: *const Counter, one: *const Row, other: *const Row) bool {
        if (one.traded_at != other.traded_at) return one.traded_at < other.traded_at;
        if (one.sequence != other.sequence) return one.sequence < other.sequence;
        return std.mem.lessThan(u8, self.idOf(one), self.idOf(other));
    }
};
