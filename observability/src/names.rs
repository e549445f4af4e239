//! Every metric name of Saola, once. Rules, dashboards and code use these and no others.

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)+) => {
        $($(#[$doc])* #[doc = concat!("`", $name, "`")] pub const $constant: &str = $name;)+

        /// All of them, for the contract with rules and dashboards.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

names! {
    HTTP_SERVER_REQUESTS_STARTED = "http_server_requests_started_total";
    HTTP_SERVER_REQUEST_DURATION = "http_server_request_duration_seconds";
    HTTP_SERVER_ACTIVE_REQUESTS = "http_server_active_requests";
    HTTP_SERVER_REQUEST_BODY_BYTES = "http_server_request_body_bytes_total";
    HTTP_SERVER_RESPONSE_BODY_BYTES = "http_server_response_body_bytes_total";
    HTTP_SERVER_EXCEPTIONS = "http_server_exceptions_total";
    HTTP_SERVER_REQUESTS_LOST = "http_server_requests_lost_total";
    HTTP_SERVER_REQUEST_TIMEOUTS = "http_server_request_timeouts_total";
    HTTP_SERVER_REQUESTS_REJECTED = "http_server_requests_rejected_total";
    SAOLA_BUILD_INFO = "saola_build_info";
    SAOLA_WORKERS_CONFIGURED = "saola_workers_configured";
    SAOLA_GENERATION = "saola_generation";
    SAOLA_DEGRADED = "saola_degraded";
    SAOLA_WORKER_UP = "saola_worker_up";
    SAOLA_WORKER_RESTARTS = "saola_worker_restarts_total";
    SAOLA_WORKER_BOOT = "saola_worker_boot_seconds";
    SAOLA_WORKER_DRAIN = "saola_worker_drain_seconds";
    SAOLA_WORKER_HEARTBEAT_AGE = "saola_worker_heartbeat_age_seconds";
    SAOLA_WORKER_EVENT_LOOP_LAG = "saola_worker_event_loop_lag_seconds";
    SAOLA_WORKER_EVENT_LOOP_BUSY_RATIO = "saola_worker_event_loop_busy_ratio";
    SAOLA_CONNECTIONS_ACTIVE = "saola_connections_active";
    SAOLA_CONNECTIONS_LIMIT = "saola_connections_limit";
    SAOLA_CONNECTIONS_ACCEPTED = "saola_connections_accepted_total";
    SAOLA_ACCEPT_QUEUE_LENGTH = "saola_accept_queue_length";
    SAOLA_ACCEPT_QUEUE_LIMIT = "saola_accept_queue_limit";
    SAOLA_LISTEN_OVERFLOWS = "saola_listen_overflows_total";
    SAOLA_RELOADS = "saola_reloads_total";
    SAOLA_UPGRADES = "saola_upgrades_total";
    SAOLA_RECORDS_DROPPED = "saola_records_dropped_total";
    SAOLA_LOG_LINES = "saola_log_lines_total";
    SAOLA_LOG_LINES_DROPPED = "saola_log_lines_dropped_total";
    SAOLA_SPANS_EXPORTED = "saola_spans_exported_total";
    SAOLA_SPANS_DROPPED = "saola_spans_dropped_total";
    SAOLA_PROFILE_SAMPLES = "saola_profile_samples_total";
    SAOLA_PROFILE_SAMPLES_DROPPED = "saola_profile_samples_dropped_total";
    SAOLA_PROFILE_PUSHES = "saola_profile_pushes_total";
    SAOLA_METRICS_SERIES_DROPPED = "saola_metrics_series_dropped_total";
    SAOLA_SLOTS_BAD = "saola_slots_bad";
    SAOLA_SCRAPE_DURATION = "saola_scrape_duration_seconds";
    PROCESS_CPU = "process_cpu_seconds_total";
    PROCESS_RESIDENT_MEMORY = "process_resident_memory_bytes";
    PROCESS_PRIVATE_MEMORY = "process_private_memory_bytes";
    PROCESS_OPEN_FDS = "process_open_fds";
    PROCESS_MAX_FDS = "process_max_fds";
    PROCESS_START_TIME = "process_start_time_seconds";
    PROCESS_THREADS = "process_threads";
    DB_CLIENT_OPERATION_DURATION = "db_client_operation_duration_seconds";
    DB_CLIENT_CONNECTION_COUNT = "db_client_connection_count";
    DB_CLIENT_CONNECTION_MAX = "db_client_connection_max";
    DB_CLIENT_CONNECTION_PENDING = "db_client_connection_pending_requests";
    DB_CLIENT_CONNECTION_TIMEOUTS = "db_client_connection_timeouts_total";
    CACHE_REQUESTS = "cache_requests_total";
    ORDER_CHECKOUTS = "order_checkouts_total";
    ORDER_REVENUE = "order_revenue_total";
    ORDER_CHECKOUT_ERRORS = "order_checkout_errors_total";
}
