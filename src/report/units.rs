//! Times, sizes and counts as people say them.

/// Milliseconds: `0.02s`, `3.1s`, `4m 05s`, `2h 10m`.
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{:.2}s", millis as f64 / 1000.0),
        1..60 => format!("{:.1}s", millis as f64 / 1000.0),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A guess in seconds: `about 40s left`, `about 14m left`, `about 2h 10m left`.
pub(crate) fn left(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e9) as u64;
    let guess = match seconds {
        0..10 => "a few seconds".to_owned(),
        10..60 => format!("about {}s", seconds.div_ceil(5) * 5),
        60..3600 => format!("about {}m", seconds.div_ceil(60)),
        _ => format!("about {}h {:02}m", seconds / 3600, seconds % 3600 / 60),
    };
    format!("{guess} left")
}

/// Bytes: `512 B`, `93.2 MB`, `14.5 GB`, in powers of ten.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// `1 stage`, `2 stages`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

/// A figure in about three digits, never in more than it has: `0.84`, `12.3`, `1e-4`.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (value.fract() == 0.0 && size < 1e6) {
        return format!("{value:.0}");
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 0.1 {
        3
    } else {
        4
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, figure, left};

    #[test]
    fn times() {
        let said: Vec<_> = [20, 3_140, 245_000, 7_800_000].map(duration).into();
        assert_eq!(said, ["0.02s", "3.1s", "4m 05s", "2h 10m"]);
        let said: Vec<_> = [3.0, 37.0, 840.0, 7_800.0].map(left).into();
        assert_eq!(
            said,
            [
                "a few seconds left",
                "about 40s left",
                "about 14m left",
                "about 2h 10m left"
            ]
        );
    }

    #[test]
    fn sizes() {
        let said: Vec<_> = [512, 93_200_000, 999_999, 14_500_000_000].map(bytes).into();
        assert_eq!(said, ["512 B", "93.2 MB", "1.0 MB", "14.5 GB"]);
    }

    #[test]
    fn figures() {
        let said: Vec<_> = [0.84123, 12.34, 0.0001, 3.0, 0.9, 1234.5]
            .map(figure)
            .into();
        assert_eq!(said, ["0.841", "12.3", "1.00e-4", "3", "0.9", "1234"]);
    }
}
