//! The pages: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, oneshot};

use super::exposition::{self, Format};
use crate::runtime::Notice;
use crate::runtime::observation::{Observation, Pulse};

/// A loop without a turn for this long is stalled: it turns with each heartbeat, at least once per
/// second.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// An observation serves all requests within this time.
const OBSERVED_FOR: Duration = Duration::from_millis(100);
/// How long a request waits for an observation.
const OBSERVE_MAX: Duration = Duration::from_secs(2);

/// Asks the loop for observations on behalf of all requests.
struct Observer {
    notices: UnboundedSender<Notice>,
    pulse: Arc<Pulse>,
    observed: Mutex<Observed>,
}

#[derive(Default)]
struct Observed {
    last: Option<Arc<Observation>>,
    /// The loop was asked and has not answered yet. The next question waits for that answer, even
    /// if the request that caused it has ended.
    asked: Option<oneshot::Receiver<Observation>>,
}

/// Why the node cannot be observed, as text.
enum Unobserved {
    Starting,
    Stalled(Duration),
    Ended,
}

impl Unobserved {
    fn in_words(&self) -> String {
        match self {
            Unobserved::Starting => "the node is starting".to_owned(),
            Unobserved::Stalled(age) => {
                format!(
                    "the node's loop made no turn for {:.1} s",
                    age.as_secs_f64()
                )
            }
            Unobserved::Ended => "the node has stopped".to_owned(),
        }
    }
}

impl Observer {
    async fn observe(&self) -> Result<Arc<Observation>, Unobserved> {
        let mut observed = self.observed.lock().await;
        let is_fresh = |seen: &&Arc<Observation>| seen.taken.elapsed() < OBSERVED_FOR;
        if let Some(last) = observed.last.as_ref().filter(is_fresh) {
            return Ok(Arc::clone(last));
        }
        let Some(age) = self.pulse.age(Instant::now()) else {
            return Err(Unobserved::Starting);
        };
        if age >= STALLED_AFTER {
            return Err(Unobserved::Stalled(age));
        }
        loop {
            let Observed { last, asked } = &mut *observed;
            let answer = match asked {
                Some(answer) => answer,
                None => {
                    let (asker, answer) = oneshot::channel();
                    let sent = self.notices.send(Notice::Observe(asker));
                    sent.map_err(|_| Unobserved::Ended)?;
                    asked.insert(answer)
                }
            };
            match tokio::time::timeout(OBSERVE_MAX, answer).await {
                Err(_) => return Err(Unobserved::Stalled(OBSERVE_MAX)),
                Ok(Err(_)) => {
                    *asked = None;
                    return Err(Unobserved::Ended);
                }
                Ok(Ok(observation)) => {
                    *asked = None;
                    // The answer may have waited here since its request was abandoned.
                    if observation.taken.elapsed() < OBSERVED_FOR {
                        let observation = Arc::new(observation);
                        *last = Some(Arc::clone(&observation));
                        return Ok(observation);
                    }
                }
            }
        }
    }
}

pub fn router(notices: UnboundedSender<Notice>, pulse: Arc<Pulse>) -> Router {
    let observer = Observer {
        notices,
        pulse,
        observed: Mutex::default(),
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "/metrics, /healthz and /readyz exist\n",
            )
        })
        .with_state(Arc::new(observer))
}

async fn metrics(State(observer): State<Arc<Observer>>, headers: HeaderMap) -> Response {
    let observation = match observer.observe().await {
        Ok(observation) => observation,
        Err(why) => return unavailable(&why.in_words()),
    };
    let wanted = headers.get_all(header::ACCEPT).iter();
    let format = Format::wanted(wanted.filter_map(|value| value.to_str().ok()));
    match exposition::write(observation, format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// A node that is starting is healthy: it may have much to read, and stopping it would not help.
async fn health(State(observer): State<Arc<Observer>>) -> Response {
    match observer.pulse.age(Instant::now()) {
        None => "starting\n".into_response(),
        Some(age) if age < STALLED_AFTER => "ok\n".into_response(),
        Some(age) => unavailable(&Unobserved::Stalled(age).in_words()),
    }
}

async fn readiness(State(observer): State<Arc<Observer>>) -> Response {
    match observer.observe().await {
        Ok(observation) => match observation.obstacle() {
            None => "ready\n".into_response(),
            Some(obstacle) => unavailable(&format!("not ready: {obstacle}")),
        },
        Err(why) => unavailable(&format!("not ready: {}", why.in_words())),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
