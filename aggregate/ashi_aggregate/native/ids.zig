//! Which ids of a symbol have been counted: `ashi_aggregate.core.trade_ids.TradeIds`, of numbers alone.

const std = @import("std");

pub const Room = error{Room};

pub const Slot = extern struct {
    at: u32,
    len: u32,
    /// So many numbers more have their place behind its own.
    room: u32,
    /// Its numbers are in those put out, else in those given.
    is_own: bool,
    changed: bool,
};

pub const Ids = struct {
    /// The intervals that are known, and those that are being made; each slot says which it has.
    given: []const u64,
    made: []u64,
    finest_us: i64,
    copies_apart_us: i64,
    /// Start of the first slot's window, µs.
    base: i64,
    slots: []Slot,

    pub fn slotOf(self: *const Ids, time: i64) ?usize {
        if (time < self.base) return null;
        const number: u64 = @intCast(@divFloor(time - self.base, self.finest_us));
        return if (number < self.slots.len) @intCast(number) else null;
    }

    fn numbersOf(self: *const Ids, slot: *const Slot) []const u64 {
        const all = if (slot.is_own) self.made else self.given;
        return all[slot.at..][0..slot.len];
    }

    /// Count a trade; false when one of that id and about that time has been counted before.
    pub fn admit(self: *Ids, id: u64, traded_at: i64) Room!bool {
        const finest = self.finest_us;
        const apart = self.copies_apart_us;
        var start = traded_at - apart - @mod(traded_at - apart, finest);
        while (start <= traded_at + apart) : (start += finest) {
            const number = self.slotOf(start) orelse continue;
            if (placeOf(self.numbersOf(&self.slots[number]), id + 1) % 2 == 1) return false;
        }
        const slot = &self.slots[self.slotOf(traded_at) orelse return error.Room];
        const numbers = self.made[slot.at..][0 .. slot.len + slot.room];
        // As `WindowIds._add_interval`: at an even place lies between intervals, an odd one ends where this begins.
        const place = placeOf(numbers[0..slot.len], id);
        const joins_before = place % 2 == 1;
        const after = if (joins_before) place + 1 else place;
        const joins_after = after < slot.len and numbers[after] == id + 1;
        slot.changed = true;
        if (joins_before and joins_after) {
            std.mem.copyForwards(u64, numbers[place .. slot.len - 2], numbers[place + 2 .. slot.len]);
            slot.len -= 2;
        } else if (joins_before) {
            numbers[place] = id + 1;
        } else if (joins_after) {
            numbers[place] = id;
        } else {
            if (slot.room < 2) return error.Room;
            std.mem.copyBackwards(u64, numbers[place + 2 .. slot.len + 2], numbers[place..slot.len]);
            numbers[place] = id;
            numbers[place + 1] = id + 1;
            slot.len += 2;
            slot.room -= 2;
        }
        return true;
    }
};

/// How many of the ascending numbers are less than `number`.
fn placeOf(numbers: []const u64, number: u64) usize {
    var low: usize = 0;
    var high: usize = numbers.len;
    while (low < high) {
        const middle = low + (high - low) / 2;
        if (numbers[middle] < number) low = middle + 1 else high = middle;
    }
    return low;
}
