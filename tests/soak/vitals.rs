//! What a process has from moment to moment, and whether that grows.

use crate::course::Course;
use std::time::Duration;

const MIB: f64 = 1_048_576.0;

/// What a process has at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Since the beginning.
    pub(crate) at: Duration,
    resident: f64,
    descriptors: usize,
}

impl Sample {
    pub(crate) fn of(pid: u32, at: Duration) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { at, resident: resident * 1024.0, descriptors }
    }
}

/// In the second half memory does not grow, nor do descriptors.
pub(crate) fn check(samples: &[Sample], course: &Course) {
    let half: Vec<Sample> = samples.iter().copied().filter(|sample| sample.at >= course.whole / 2).collect();
    // What it has between two tasks is what it keeps: the least of each window.
    let mut windows: Vec<(f64, f64)> = Vec::new();
    let mut begins = course.whole / 2;
    while begins < course.whole {
        let within = half.iter().filter(|sample| sample.at >= begins && sample.at < begins + course.window);
        let least = within.map(|sample| sample.resident).fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            windows.push((begins.as_secs_f64() / 60.0, least));
        }
        begins += course.window;
    }
    let slope = slope(&windows);
    let shown: Vec<String> = windows.iter().map(|(_, least)| format!("{:.1}", least / MIB)).collect();
    println!("memory by window: {} MiB; slope {:.2} MiB a minute", shown.join(" "), slope / MIB);
    assert!(slope < course.slope_max, "{slope} bytes a minute");
    let quarter = half.len() / 4;
    let descriptors = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).min().unwrap();
    let (before, after) = (descriptors(&half[..quarter]), descriptors(&half[half.len() - quarter..]));
    println!("descriptors: {before} and {after}");
    assert!(before.abs_diff(after) <= 5, "{before} and {after}");
}

/// The slope of the line through these points, as Theil and Sen fit it: the median of the slopes between any two, so
/// that a few that stand out don't bend it.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes: Vec<f64> = Vec::new();
    for (at, (x, y)) in points.iter().enumerate() {
        slopes.extend(points[at + 1..].iter().map(|(later, other)| (other - y) / (later - x)));
    }
    slopes.sort_unstable_by(f64::total_cmp);
    slopes[slopes.len() / 2]
}

#[test]
fn a_line_is_fitted_whatever_stands_out() {
    let mut points: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x))).collect();
    points[19].1 = 1_000.0;
    points[3].1 = 0.0;
    assert!((slope(&points) - 3.0).abs() < 0.01);
}
