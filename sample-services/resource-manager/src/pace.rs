//! How often services are looked at: pure.

use std::time::Duration;

use crate::settings::{Period, Settings};

/// So many looks at which nobody was short, and all had what they are let have in calm.
const CALM: u32 = 30;

/// The looks there were since the last one at which something mattered.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    calm: u32,
}

impl Pace {
    /// There was a look; the time until the next one.
    pub(crate) fn after(&mut self, is_calm: bool, settings: &Settings) -> Period {
        self.calm = if is_calm { self.calm.saturating_add(1) } else { 0 };
        self.now(settings)
    }

    /// From one look to the next.
    pub(crate) fn now(&self, settings: &Settings) -> Period {
        match settings.calm_period {
            Some(longer) if self.calm >= CALM => longer,
            _ => settings.period,
        }
    }

    /// For how many periods a look stands.
    pub(crate) fn periods(&self, settings: &Settings) -> usize {
        let times = |Period(long): Period, Period(short): Period| {
            long.as_millis().checked_div(short.max(Duration::from_millis(1)).as_millis())
        };
        times(self.now(settings), settings.period).and_then(|times| usize::try_from(times).ok()).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_further_apart_when_it_is_calm_and_not_as_soon_as_something_matters() {
        let seconds = |seconds| Period(Duration::from_secs(seconds));
        let settings = Settings { calm_period: Some(seconds(10)), ..Settings::default() };
        let mut pace = Pace::default();
        let mut after =
            |is_calm, looks: u32| (0..looks).map(|_| pace.after(is_calm, &settings)).last().unwrap();
        assert_eq!(after(true, 29), seconds(1));
        assert_eq!(after(true, 1), seconds(10));
        assert_eq!(after(false, 1), seconds(1));
        assert_eq!(after(true, 29), seconds(1));
        assert_eq!(after(true, 1000), seconds(10));
        assert_eq!(pace.periods(&settings), 10);
        let steady = Settings::default();
        assert_eq!((pace.after(true, &steady), pace.periods(&steady)), (seconds(1), 1));
    }
}
