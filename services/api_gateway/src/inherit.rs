//! What routes keep when settings change: a route that is still there remembers its clients' rates, its requests in
//! flight, and what it knows of its addresses. Otherwise a change of settings would forgive whoever is over a limit.

use std::sync::Arc;

use crate::rate::RateLimit;
use crate::table::{RouteTable, Target, Way};

impl RouteTable {
    /// Takes over what the routes of an earlier table know. A route is the same one if it has the same name, or takes the
    /// same requests.
    pub(crate) fn inherit(&mut self, old: &Self) {
        let buckets =
            old.ways().iter().chain(self.ways()).find_map(|way| way.rate.as_ref()).map(RateLimit::buckets);
        let buckets = buckets.map(Arc::clone);
        let mut heirs = vec![false; old.ways().len()];
        for way in self.ways_mut() {
            if let (Some(rate), Some(buckets)) = (&mut way.rate, &buckets) {
                rate.move_to(buckets);
            }
            let ancestor = old
                .ways()
                .iter()
                .zip(&mut heirs)
                .find(|(old, has_heir)| !**has_heir && old.label == way.label);
            if let Some((old, has_heir)) = ancestor {
                *has_heir = true;
                inherit(way, old);
            }
        }
    }
}

fn inherit(way: &mut Way, old: &Way) {
    if let (Some(rate), Some(old)) = (&mut way.rate, &old.rate) {
        rate.inherit(old);
    }
    if let (Some(places), Some(old)) = (&mut way.places, &old.places) {
        old.resize(places.limit());
        *places = Arc::clone(old);
    }
    if let (Target::Addresses { urls, .. }, Target::Addresses { urls: old, .. }) =
        (&mut way.target, &old.target)
    {
        for url in urls {
            // A clone shares what is known about the address.
            if let Some(known) = old.iter().find(|known| known.has_same_target(url)) {
                *url = known.clone();
            }
        }
    }
}
