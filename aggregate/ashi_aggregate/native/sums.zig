//! Exact sums of decimals: 128 bits and a number of places after the point. What needs more is an overflow, never wrong.

pub const Overflow = error{Overflow};

/// A trade's side: bought by the taker. 0 is none, 2 sold.
const BUY = 1;

const POWERS: [39]u128 = powers: {
    var all: [39]u128 = undefined;
    var power: u128 = 1;
    for (&all, 0..) |*each, exponent| {
        each.* = power;
        if (exponent < 38) power *= 10;
    }
    break :powers all;
};

/// Whether a price is less than another's; of anything that has `price` and `price_scale`.
pub fn isLess(one: anytype, other: @TypeOf(one)) bool {
    if (one.price_scale == other.price_scale) return one.price < other.price;
    if (one.price_scale < other.price_scale) {
        return @as(u128, one.price) * POWERS[other.price_scale - one.price_scale] < other.price;
    }
    return one.price < @as(u128, other.price) * POWERS[one.price_scale - other.price_scale];
}

/// Add a trade's size and price times size, which also count as bought by a taker where its side is `BUY`. Of a total
/// that has these four sums, and of a trade that has `price`, `size` and `side`.
pub fn addTrade(total: anytype, trade: anytype) Overflow!void {
    const quote = @as(u128, trade.price) * @as(u128, trade.size);
    const quote_scale = trade.price_scale + trade.size_scale;
    try add(&total.volume, &total.volume_scale, trade.size, trade.size_scale);
    try add(&total.quote, &total.quote_scale, quote, quote_scale);
    if (trade.side == BUY) {
        try add(&total.buy_volume, &total.buy_volume_scale, trade.size, trade.size_scale);
        try add(&total.buy_quote, &total.buy_quote_scale, quote, quote_scale);
    }
    total.count += 1;
}

/// Add a decimal, with the greater number of places of the two, as Python's sums have it.
pub fn add(total: *u128, total_scale: *u8, value: u128, scale: u8) Overflow!void {
    var added = value;
    if (scale > total_scale.*) {
        const scaled = @mulWithOverflow(total.*, POWERS[scale - total_scale.*]);
        if (scaled[1] != 0) return error.Overflow;
        total.* = scaled[0];
        total_scale.* = scale;
    } else if (scale < total_scale.*) {
        const scaled = @mulWithOverflow(added, POWERS[total_scale.* - scale]);
        if (scaled[1] != 0) return error.Overflow;
        added = scaled[0];
    }
    const result = @addWithOverflow(total.*, added);
    if (result[1] != 0) return error.Overflow;
    total.* = result[0];
}
