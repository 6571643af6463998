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
const Full = @import("message.zig").Full;
const Known = interface.Known;
const Late = interface.Late;
const Message = @import("message.zig").Message;
const Mode = interface.Mode;
const Part = interface.Part;
const Verdict = interface.Verdict;
const Window = interface.Window;
const Record = @import("trade.zig").Record;
const Symbol = @import("scan.zig").Symbol;

/// Folds the records of each symbol whose mode is not `leave`, and writes a message: an array with one entry for each
/// symbol, its verdict where it was not folded, else what `Folder.tell` says. `used`: how long the message is.
export fn ashi_fold(folding: *const Folding, used: *u32) i32 {
    var folder = Folder{
        .in = folding,
        .records = folding.records[0..folding.records_len],
        .order = folding.order[0..folding.order_len],
        .windows = folding.windows[0..folding.windows_len],
        .numbers = folding.numbers[0..folding.numbers_len],
        .data = folding.data[0..folding.data_len],
        .lengths = folding.lengths[0..folding.lengths_len],
        .parts = folding.parts[0..folding.max_parts],
        .late = folding.late[0..folding.max_late],
        .numbers_out = folding.numbers_out[0..folding.max_numbers],
        .slots = folding.slots[0..folding.slots_len],
        .message = .{ .bytes = folding.message[0..folding.message_len] },
    };
    folder.all(folding.symbols[0..folding.symbols_len], folding.known[0..folding.symbols_len]) catch {
        return @backingInt(batches.Failure.no_room);
    };
    used.* = @intCast(folder.message.at);
    return @backingInt(batches.Failure.none);
}

/// So many records before it is added up one is fetched into the processor's cache.
const AHEAD = 6;

const Undecided = error{ Slow, Ids, Texts, Tie } || Room || sums.Overflow;

/// What is made of one symbol.
const Sum = struct {
    stream_time: i64,
    last_offset: i64 = 0,
    unseen: u32 = 0,
    counted: u32 = 0,
    duplicates: u32 = 0,
    ids: Ids = undefined,
};

const Folder = struct {
    in: *const Folding,
    records: []const Record,
    /// The places of each symbol's records.
    order: []const u32,
    windows: []const Window,
    numbers: []const u64,
    data: []const u8,
    /// Of the timeframes beyond the finest, µs.
    lengths: []const i64,
    parts: []Part,
    late: []Late,
    numbers_out: []u64,
    slots: []Slot,
    message: Message,
    /// Of the symbol that is being folded: so many parts, late ones and numbers there are.
    parts_len: u32 = 0,
    late_len: u32 = 0,
    numbers_len: u32 = 0,
    /// So many numbers at the end of `numbers_out` are chains of runs.
    chained: usize = 0,

    fn all(self: *Folder, symbols: []const Symbol, known: []const Known) Full!void {
        try self.message.array(symbols.len);
        for (symbols, known) |*of, *before| try self.symbol(of, before);
    }

    fn symbol(self: *Folder, of: *const Symbol, known: *const Known) Full!void {
        const mode: Mode = if (known.mode > 4) .leave else @fromBackingInt(@intCast(known.mode));
        if (mode == .leave) return self.message.uint(@backingInt(Verdict.left));
        const begin = self.message.at;
        self.parts_len = 0;
        self.late_len = 0;
        self.numbers_len = 0;
        self.chained = 0;
        const verdict: Verdict = if (self.foldAndTell(of, known, mode)) |folded|
            (if (folded) .folded else .seen)
        else |undecided| switch (undecided) {
            error.Slow => .slow,
            error.Ids => .ids,
            error.Texts => .texts,
            error.Room => .room,
            error.Overflow => .overflow,
            error.Tie => .tie,
            error.Full => return error.Full,
        };
        if (verdict == .folded) return;
        self.message.at = begin;
        try self.message.uint(@backingInt(verdict));
    }

    /// False where every record had been seen.
    fn foldAndTell(self: *Folder, of: *const Symbol, known: *const Known, mode: Mode) (Undecided || Full)!bool {
        var sum = Sum{ .stream_time = known.stream_time };
        try self.fold(of, known, mode, &sum);
        if (sum.unseen == 0) return false;
        try self.tell(mode, &sum);
        return true;
    }

    fn fold(self: *Folder, of: *const Symbol, known: *const Known, mode: Mode, sum: *Sum) Undecided!void {
        if (mode == .intervals) sum.ids = try self.knownIds(of, known);
        var stream_time = known.stream_time;
        var greatest = known.greatest_id;
        var texts_weigh: u64 = 0;
        var part: ?*Part = null;
        const places = self.placesOf(of);
        for (places, 0..) |place, number| {
            const record = &self.records[place];
            if (number + AHEAD < places.len) self.fetchAhead(places[number + AHEAD]);
            if (record.offset <= known.applied_offset) continue;
            if (record.slow != 0) return error.Slow;
            sum.unseen += 1;
            sum.last_offset = record.offset;
            if (record.traded_at > stream_time) stream_time = record.traded_at;
            if (mode == .ascending) {
                // Of ids that only ascend none is a copy, late or not.
                if (record.id_is_number == 0) return error.Texts;
                if (@as(i64, @intCast(record.id)) <= greatest) return error.Ids;
                greatest = @intCast(record.id);
            }
            if (mode == .given) {
                const given = self.in.admitted[place];
                if (given == 0) sum.duplicates += 1;
                if (given != 1) continue;
            } else {
                const reason = self.lateReason(known, stream_time, record.traded_at);
                if (reason != 0) {
                    if (mode == .texts) return error.Ids; // whether a copy of it may still come is Python's to say
                    if (self.late_len >= self.late.len) return error.Room;
                    self.late[self.late_len] = .{ .stream_time = stream_time, .record = place, .reason = reason };
                    self.late_len += 1;
                    continue;
                }
            }
            if (mode == .intervals and !try sum.ids.admit(record.id, record.traded_at)) {
                sum.duplicates += 1;
                continue;
            }
            sum.counted += 1;
            if (part == null or !self.isIn(part.?, record.traded_at)) part = try self.partOf(record, place);
            try self.add(part.?, record, place);
            if (mode == .ascending) try self.note(part.?, record.id);
            if (mode == .texts) texts_weigh += try self.noteText(part.?, record, place);
        }
        sum.stream_time = stream_time;
        if (mode == .texts and texts_weigh > known.id_room) return error.Room;
        // Runs only become more. Intervals may become fewer again, and it is their greatest number that counts.
        if (mode == .ascending and self.chained / 3 > known.id_room) return error.Room;
        if (mode == .intervals and sum.counted > known.id_room) return error.Room;
    }

    fn placesOf(self: *const Folder, of: *const Symbol) []const u32 {
        return self.order[of.order_at..][0..of.count];
    }

    /// Let the processor fetch a record while others are added up: those of a symbol are far from each other.
    fn fetchAhead(self: *const Folder, place: u32) void {
        const bytes = std.mem.asBytes(&self.records[place]);
        @prefetch(&bytes[0], .{});
        @prefetch(&bytes[bytes.len - 1], .{});
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

    /// The part of a record's window; they stand by time, a new one in its place.
    fn partOf(self: *Folder, record: *const Record, place: u32) Undecided!*Part {
        const open_time = record.traded_at - @mod(record.traded_at, self.in.finest_us);
        var at = self.parts_len;
        while (at > 0 and self.parts[at - 1].open_time >= open_time) : (at -= 1) {
            if (self.parts[at - 1].open_time == open_time) return &self.parts[at - 1];
        }
        if (self.parts_len >= self.parts.len) return error.Room;
        const end = self.parts_len;
        std.mem.copyBackwards(Part, self.parts[at + 1 .. end + 1], self.parts[at..end]);
        self.parts_len += 1;
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
        try sums.addTrade(part, record);
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
        if (numbers.len - self.numbers_len < self.chained + 3) return error.Room;
        self.chained += 3;
        const run: u32 = @intCast(numbers.len - self.chained);
        numbers[run] = id;
        numbers[run + 1] = id + 1;
        if (part.ids_len > 0) numbers[part.last_run + 2] = run else part.ids_at = run;
        part.last_run = run;
        part.ids_len += 1;
    }

    /// Note a record of a part whose id is a text: a chain by the places of the records. Gives what the id weighs, as
    /// `trade_ids` has it.
    fn noteText(self: *Folder, part: *Part, record: *const Record, place: u32) Undecided!u64 {
        if (record.id_is_number != 0) return error.Ids;
        for (self.idText(record)) |char| {
            if (char < '0' or char > '9') break;
        } else return error.Ids; // a number, to Python
        if (place >= self.numbers_out.len) return error.Room;
        if (part.ids_len > 0) self.numbers_out[part.last_run] = place else part.ids_at = place;
        part.last_run = place;
        part.ids_len += 1;
        const weighs = 1 + record.id_len / 16;
        part.texts_weigh += weighs;
        return weighs;
    }

    /// Say what was made of a symbol: stream time, last offset, how many counted and how many were copies; of each
    /// timeframe its folds, oldest first; ids that are numbers, by finest window; those that are texts, likewise with
    /// what they weigh; and the late ones.
    fn tell(self: *Folder, mode: Mode, sum: *const Sum) (Undecided || Full)!void {
        const parts = self.parts[0..self.parts_len];
        const message = &self.message;
        try message.array(8);
        try message.int(sum.stream_time);
        try message.int(sum.last_offset);
        try message.uint(sum.counted);
        try message.uint(sum.duplicates);
        try message.array(1 + self.lengths.len);
        try message.array(parts.len);
        for (parts) |*part| try self.tellFold(part, part.open_time);
        for (self.lengths) |length| try self.tellCoarser(parts, length);
        switch (mode) {
            .ascending => try self.tellRuns(parts),
            .intervals => try self.tellWindows(&sum.ids),
            else => try message.array(0),
        }
        if (mode == .texts) try self.tellTexts(parts) else try message.array(0);
        try message.array(self.late_len);
        for (self.late[0..self.late_len]) |*late| {
            try message.array(3);
            try message.int(late.stream_time);
            try message.uint(late.record);
            try message.uint(late.reason);
        }
    }

    /// The folds of the windows of a coarser timeframe; the parts stand by time.
    fn tellCoarser(self: *Folder, parts: []const Part, length: i64) (Undecided || Full)!void {
        var count: usize = 0;
        var open_time: i64 = -1;
        for (parts) |*part| {
            const begin = part.open_time - @mod(part.open_time, length);
            if (begin != open_time) count += 1;
            open_time = begin;
        }
        try self.message.array(count);
        var number: usize = 0;
        while (number < parts.len) {
            var total = parts[number];
            open_time = total.open_time - @mod(total.open_time, length);
            number += 1;
            while (number < parts.len and parts[number].open_time - open_time < length) : (number += 1) {
                try self.merge(&total, &parts[number]);
            }
            try self.tellFold(&total, open_time);
        }
    }

    /// Add the part of a later window.
    fn merge(self: *const Folder, total: *Part, later: *const Part) Undecided!void {
        total.last = later.last;
        if (sums.isLess(&self.records[total.high], &self.records[later.high])) total.high = later.high;
        if (sums.isLess(&self.records[later.low], &self.records[total.low])) total.low = later.low;
        try sums.add(&total.volume, &total.volume_scale, later.volume, later.volume_scale);
        try sums.add(&total.quote, &total.quote_scale, later.quote, later.quote_scale);
        try sums.add(&total.buy_volume, &total.buy_volume_scale, later.buy_volume, later.buy_volume_scale);
        try sums.add(&total.buy_quote, &total.buy_quote_scale, later.buy_quote, later.buy_quote_scale);
        total.count += later.count;
        total.last_offset = @max(total.last_offset, later.last_offset);
    }

    /// As `ashi_aggregate.core.fold.Fold` has its fields, but for the symbol.
    fn tellFold(self: *Folder, part: *const Part, open_time: i64) Full!void {
        const message = &self.message;
        try message.array(11);
        try message.int(open_time);
        try self.tellRank(part.first);
        try self.tellRank(part.last);
        try message.text(self.priceText(part.high));
        try message.text(self.priceText(part.low));
        try message.decimal(part.volume, part.volume_scale);
        try message.decimal(part.quote, part.quote_scale);
        try message.uint(part.count);
        try message.decimal(part.buy_volume, part.buy_volume_scale);
        try message.decimal(part.buy_quote, part.buy_quote_scale);
        try message.int(part.last_offset);
    }

    fn tellRank(self: *Folder, place: u32) Full!void {
        const record = &self.records[place];
        const message = &self.message;
        try message.array(4);
        try message.int(record.traded_at);
        try message.int(record.sequence);
        try message.text(self.idText(record));
        try message.text(self.priceText(place));
    }

    fn priceText(self: *const Folder, place: u32) []const u8 {
        const record = &self.records[place];
        return self.data[record.price_at..][0..record.price_len];
    }

    /// The intervals of each part.
    fn tellRuns(self: *Folder, parts: []const Part) Full!void {
        const numbers = self.numbers_out;
        try self.message.array(parts.len);
        for (parts) |*part| {
            try self.message.array(2);
            try self.message.int(part.open_time);
            try self.message.array(2 * @as(usize, part.ids_len));
            var run: usize = part.ids_at;
            var left = part.ids_len;
            while (left > 0) : (left -= 1) {
                try self.message.uint(numbers[run]);
                try self.message.uint(numbers[run + 1]);
                if (left > 1) run = @intCast(numbers[run + 2]);
            }
        }
    }

    /// The intervals of the windows whose ids have changed.
    fn tellWindows(self: *Folder, ids: *const Ids) Full!void {
        var count: usize = 0;
        for (ids.slots) |*slot| count += @intFromBool(slot.changed);
        try self.message.array(count);
        for (ids.slots, 0..) |*slot, number| {
            if (!slot.changed) continue;
            try self.message.array(2);
            try self.message.int(ids.base + @as(i64, @intCast(number)) * self.in.finest_us);
            try self.message.array(slot.len);
            for (self.numbers_out[slot.at..][0..slot.len]) |id| try self.message.uint(id);
        }
    }

    /// The ids of each part, and what they weigh.
    fn tellTexts(self: *Folder, parts: []const Part) Full!void {
        try self.message.array(parts.len);
        for (parts) |*part| {
            try self.message.array(3);
            try self.message.int(part.open_time);
            try self.message.uint(part.texts_weigh);
            try self.message.array(part.ids_len);
            var place = part.ids_at;
            var left = part.ids_len;
            while (left > 0) : (left -= 1) {
                try self.message.text(self.idText(&self.records[place]));
                if (left > 1) place = @intCast(self.numbers_out[place]);
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
        const places = self.placesOf(of);
        for (places) |place| {
            const record = &self.records[place];
            if (record.offset <= known.applied_offset) continue;
            if (record.slow != 0) return error.Slow;
            if (record.id_is_number == 0) return error.Texts;
            least = @min(least, record.traded_at - @mod(record.traded_at, finest));
            greatest = @max(greatest, record.traded_at);
        }
        if (least > greatest) return self.idsOf(0, self.slots[0..0]);
        const count: u64 = @intCast(@divFloor(greatest - least, finest) + 1);
        if (count > self.slots.len) return error.Room;
        var ids = self.idsOf(least, self.slots[0..@intCast(count)]);
        @memset(ids.slots, std.mem.zeroes(Slot));
        for (places) |place| {
            const record = &self.records[place];
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
            if (self.numbers_out.len - self.numbers_len < space) return error.Room;
            const begin = self.numbers_len;
            @memcpy(self.numbers_out[begin..][0..slot.len], self.numbers[slot.at..][0..slot.len]);
            slot.at = begin;
            slot.is_own = true;
            self.numbers_len += @intCast(space);
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
};
