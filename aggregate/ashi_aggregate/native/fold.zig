//! Adds the trades of each symbol up by finest window, from records that `scan.zig` has read.
//!
//! It decides nothing that it cannot decide exactly as Python would: a symbol for which it cannot has a verdict, and
//! nothing that was made of it counts.

const std = @import("std");
const batches = @import("batches.zig");
const sums = @import("sums.zig");
const Ids = @import("ids.zig").Ids;
const Room = @import("ids.zig").Room;
const Slot = @import("ids.zig").Slot;
const interface = @import("interface.zig");
const Folding = interface.Folding;
const Known = interface.Known;
const Late = interface.Late;
const Mode = interface.Mode;
const Outcome = interface.Outcome;
const Part = interface.Part;
const Sizes = interface.Sizes;
const Verdict = interface.Verdict;
const Window = interface.Window;
const Record = @import("trade.zig").Record;
const Symbol = @import("scan.zig").Symbol;

/// Folds the records of each symbol whose mode is not `leave`. `used`: how much of the output there is.
export fn ashi_fold(folding: *const Folding, used: *Sizes) i32 {
    var folder = Folder{
        .in = folding,
        .records = folding.records[0..folding.records_len],
        .windows = folding.windows[0..folding.windows_len],
        .numbers = folding.numbers[0..folding.numbers_len],
        .data = folding.data[0..folding.data_len],
        .parts = folding.parts[0..folding.max.parts],
        .late = folding.late[0..folding.max.late],
        .windows_out = folding.windows_out[0..folding.max.windows],
        .numbers_out = folding.numbers_out[0..folding.max.numbers],
        .slots = folding.slots[0..folding.slots_len],
    };
    for (folding.symbols[0..folding.symbols_len], folding.known[0..folding.symbols_len], folding.outcomes[0..folding.symbols_len]) |*symbol, *known, *outcome| {
        folder.symbol(symbol, known, outcome);
    }
    used.* = folder.used;
    return @backingInt(batches.Failure.none);
}

const Undecided = error{ Slow, Ids, Tie } || Room || sums.Overflow;

const Folder = struct {
    in: *const Folding,
    records: []const Record,
    windows: []const Window,
    numbers: []const u64,
    data: []const u8,
    parts: []Part,
    late: []Late,
    windows_out: []Window,
    numbers_out: []u64,
    slots: []Slot,
    /// So many numbers at the end of `numbers_out` are chains of runs.
    chained: usize = 0,
    used: Sizes = .{ .parts = 0, .late = 0, .windows = 0, .numbers = 0 },

    fn symbol(self: *Folder, of: *const Symbol, known: *const Known, outcome: *Outcome) void {
        outcome.* = std.mem.zeroes(Outcome);
        const mode: Mode = if (known.mode > 3) .leave else @fromBackingInt(@intCast(known.mode));
        if (mode == .leave) return;
        const before = self.used;
        outcome.parts_at = before.parts;
        outcome.late_at = before.late;
        outcome.windows_at = before.windows;
        outcome.stream_time = known.stream_time;
        const verdict: Verdict = if (self.fold(of, known, mode, outcome))
            (if (outcome.unseen == 0) .seen else .folded)
        else |undecided| switch (undecided) {
            error.Slow => .slow,
            error.Ids => .ids,
            error.Room => .room,
            error.Overflow => .overflow,
            error.Tie => .tie,
        };
        outcome.verdict = @backingInt(verdict);
        if (verdict == .folded) {
            outcome.parts_len = self.used.parts - outcome.parts_at;
            outcome.late_len = self.used.late - outcome.late_at;
            outcome.windows_len = self.used.windows - outcome.windows_at;
        } else {
            self.used = before;
        }
    }

    fn fold(self: *Folder, of: *const Symbol, known: *const Known, mode: Mode, outcome: *Outcome) Undecided!void {
        var ids: Ids = undefined;
        if (mode == .intervals) ids = try self.knownIds(of, known);
        const parts_at = self.used.parts;
        self.chained = 0;
        var stream_time = known.stream_time;
        var greatest = known.greatest_id;
        var part: ?*Part = null;
        var place = of.first;
        var number: u32 = 0;
        while (number < of.count) : (number += 1) {
            const record = &self.records[place];
            defer place = record.next;
            if (record.offset <= known.applied_offset) continue;
            if (record.slow != 0) return error.Slow;
            if (outcome.unseen == 0) outcome.first_unseen = place;
            outcome.unseen += 1;
            outcome.last_offset = record.offset;
            if (record.traded_at > stream_time) stream_time = record.traded_at;
            if (mode == .ascending) {
                // Of ids that only ascend none is a copy, late or not.
                if (record.id_is_number == 0 or @as(i64, @intCast(record.id)) <= greatest) return error.Ids;
                greatest = @intCast(record.id);
            }
            if (mode == .given) {
                const given = self.in.admitted[place];
                if (given == 0) outcome.duplicates += 1;
                if (given != 1) continue;
            } else {
                const reason = self.lateReason(known, stream_time, record.traded_at);
                if (reason != 0) {
                    if (self.used.late >= self.late.len) return error.Room;
                    self.late[self.used.late] = .{ .stream_time = stream_time, .record = place, .reason = reason };
                    self.used.late += 1;
                    continue;
                }
            }
            if (mode == .intervals and !try ids.admit(record.id, record.traded_at)) {
                outcome.duplicates += 1;
                continue;
            }
            outcome.counted += 1;
            if (part == null or !self.isIn(part.?, record.traded_at)) {
                part = try self.partOf(parts_at, record, place);
            }
            try self.add(part.?, record, place);
            if (mode == .ascending) try self.note(part.?, record.id);
        }
        outcome.stream_time = stream_time;
        if (outcome.counted > known.id_room and mode != .given) return error.Room;
        if (mode == .ascending) try self.gather(parts_at);
        if (mode == .intervals) try self.tell(&ids);
    }

    fn lateReason(self: *const Folder, known: *const Known, stream_time: i64, traded_at: i64) u32 {
        if (traded_at >= stream_time - self.in.horizon_us and traded_at >= known.dropped_until) return 0;
        const last = @max(stream_time - self.in.horizon_us - 1, 0);
        if (traded_at < last - @mod(last, self.in.finest_us)) return 1;
        return if (traded_at < known.dropped_until) 2 else 0;
    }

    fn isIn(self: *const Folder, part: *const Part, traded_at: i64) bool {
        return traded_at >= part.open_time and traded_at - part.open_time < self.in.finest_us;
    }

    /// The part of a record's window among those from `parts_at` on, which stand by time; a new one in its place.
    fn partOf(self: *Folder, parts_at: u32, record: *const Record, place: u32) Undecided!*Part {
        const open_time = record.traded_at - @mod(record.traded_at, self.in.finest_us);
        var at = self.used.parts;
        while (at > parts_at and self.parts[at - 1].open_time >= open_time) : (at -= 1) {
            if (self.parts[at - 1].open_time == open_time) return &self.parts[at - 1];
        }
        if (self.used.parts >= self.parts.len) return error.Room;
        const end = self.used.parts;
        std.mem.copyBackwards(Part, self.parts[at + 1 .. end + 1], self.parts[at..end]);
        self.used.parts += 1;
        const part = &self.parts[at];
        part.* = std.mem.zeroes(Part);
        part.open_time = open_time;
        part.first = place;
        part.last = place;
        part.high = place;
        part.low = place;
        return part;
    }

    fn add(self: *Folder, part: *Part, record: *const Record, place: u32) Undecided!void {
        if (part.count > 0) {
            if (try self.ranksBefore(record, place, part.first)) part.first = place;
            if (try self.ranksBefore(&self.records[part.last], part.last, place)) part.last = place;
            if (sums.isLess(&self.records[part.high], record)) part.high = place;
            if (sums.isLess(record, &self.records[part.low])) part.low = place;
        }
        const quote = @as(u128, record.price) * @as(u128, record.size);
        const quote_scale = record.price_scale + record.size_scale;
        try sums.add(&part.volume, &part.volume_scale, record.size, record.size_scale);
        try sums.add(&part.quote, &part.quote_scale, quote, quote_scale);
        if (record.side == 1) {
            try sums.add(&part.buy_volume, &part.buy_volume_scale, record.size, record.size_scale);
            try sums.add(&part.buy_quote, &part.buy_quote_scale, quote, quote_scale);
        }
        part.count += 1;
        part.last_offset = record.offset;
    }

    fn ranksBefore(self: *const Folder, one: *const Record, one_place: u32, other_place: u32) Undecided!bool {
        if (one_place == other_place) return false;
        const other = &self.records[other_place];
        if (one.traded_at != other.traded_at) return one.traded_at < other.traded_at;
        if (one.sequence != other.sequence) return one.sequence < other.sequence;
        return switch (std.mem.order(u8, self.idText(one), self.idText(other))) {
            .lt => true,
            .gt => false,
            .eq => error.Tie,
        };
    }

    fn idText(self: *const Folder, record: *const Record) []const u8 {
        return self.data[record.id_at..][0..record.id_len];
    }

    /// Count the id of a part. They ascend, so each part has runs, kept as a chain that grows from the end of the numbers
    /// downwards: start, end, the place of the next.
    fn note(self: *Folder, part: *Part, id: u64) Undecided!void {
        const numbers = self.numbers_out;
        if (part.ids_len > 0 and numbers[part.last_run + 1] == id) {
            numbers[part.last_run + 1] = id + 1;
            return;
        }
        if (numbers.len - self.used.numbers < self.chained + 3) return error.Room;
        self.chained += 3;
        const run: u32 = @intCast(numbers.len - self.chained);
        numbers[run] = id;
        numbers[run + 1] = id + 1;
        if (part.ids_len > 0) numbers[part.last_run + 2] = run else part.ids_at = run;
        part.last_run = run;
        part.ids_len += 1;
    }

    /// Let the runs of each part stand one behind the other.
    fn gather(self: *Folder, parts_at: u32) Undecided!void {
        const numbers = self.numbers_out;
        for (self.parts[parts_at..self.used.parts]) |*part| {
            const runs = part.ids_len;
            if (numbers.len - self.used.numbers < self.chained + 2 * @as(usize, runs)) return error.Room;
            var run = part.ids_at;
            part.ids_at = self.used.numbers;
            part.ids_len = 2 * runs;
            var left = runs;
            while (left > 0) : (left -= 1) {
                numbers[self.used.numbers] = numbers[run];
                numbers[self.used.numbers + 1] = numbers[run + 1];
                self.used.numbers += 2;
                if (left > 1) run = @intCast(numbers[run + 2]);
            }
        }
    }

    /// The ids that are known of a symbol, with room for those of its records.
    fn knownIds(self: *Folder, of: *const Symbol, known: *const Known) Undecided!Ids {
        const given = self.windows[known.windows_at..][0..known.windows_len];
        const finest = self.in.finest_us;
        var least: i64 = std.math.maxInt(i64);
        var greatest: i64 = std.math.minInt(i64);
        for (given) |*window| {
            least = @min(least, window.start);
            greatest = @max(greatest, window.start);
        }
        var place = of.first;
        var number: u32 = 0;
        while (number < of.count) : (number += 1) {
            const record = &self.records[place];
            place = record.next;
            if (record.offset <= known.applied_offset) continue;
            if (record.slow != 0) return error.Slow;
            if (record.id_is_number == 0) return error.Ids;
            least = @min(least, record.traded_at - @mod(record.traded_at, finest));
            greatest = @max(greatest, record.traded_at);
        }
        if (least > greatest) return self.idsOf(0, self.slots[0..0]);
        const count: u64 = @intCast(@divFloor(greatest - least, finest) + 1);
        if (count > self.slots.len) return error.Room;
        var ids = self.idsOf(least, self.slots[0..@intCast(count)]);
        @memset(ids.slots, std.mem.zeroes(Slot));
        place = of.first;
        number = 0;
        while (number < of.count) : (number += 1) {
            const record = &self.records[place];
            place = record.next;
            if (record.offset > known.applied_offset) ids.slots[ids.slotOf(record.traded_at).?].room += 2;
        }
        for (given) |*window| {
            const slot = &ids.slots[ids.slotOf(window.start).?];
            if (slot.len > 0 or @mod(window.start - least, finest) != 0) return error.Ids;
            slot.len = window.len;
            slot.at = window.at;
        }
        for (ids.slots) |*slot| {
            if (slot.room == 0) continue;
            const space = @as(usize, slot.len) + slot.room;
            if (self.numbers_out.len - self.used.numbers < space) return error.Room;
            const begin = self.used.numbers;
            @memcpy(self.numbers_out[begin..][0..slot.len], self.numbers[slot.at..][0..slot.len]);
            slot.at = begin;
            slot.is_own = true;
            self.used.numbers += @intCast(space);
        }
        return ids;
    }

    fn idsOf(self: *Folder, base: i64, slots: []Slot) Ids {
        return .{
            .given = self.numbers,
            .made = self.numbers_out,
            .finest_us = self.in.finest_us,
            .copies_apart_us = self.in.copies_apart_us,
            .base = base,
            .slots = slots,
        };
    }

    /// Put out the windows whose ids have changed.
    fn tell(self: *Folder, ids: *const Ids) Undecided!void {
        for (ids.slots, 0..) |*slot, number| {
            if (!slot.changed) continue;
            if (self.used.windows >= self.windows_out.len) return error.Room;
            self.windows_out[self.used.windows] = .{
                .start = ids.base + @as(i64, @intCast(number)) * self.in.finest_us,
                .at = slot.at,
                .len = slot.len,
            };
            self.used.windows += 1;
        }
    }
};
