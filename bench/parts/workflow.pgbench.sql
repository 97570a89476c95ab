-- A workflow as the store's verbs, for pgbench: create (claimed), three appends, settle. `verbs` stands for the schema.
-- No colon before a letter or a digit but for pgbench's own variables.
\set id random(1, 9000000000000000)
SELECT what FROM verbs.create(
    NULL, 1, '{r1}', 1, 600, '{}',
    ARRAY[
        'run-' || lpad(:id::text, 32, '0'), 'rebook', 'workflow',
        '{"tool": "rebook", "arguments": {"pnr": "ABC123"}, "request_id": 1, "wire_version": "2026-07-28"}',
        :id::text, :id::text, '', NULL, '', '1 rebook', '[null,null,null]'
    ],
    1, '\x00', ARRAY['s' || :id::text, '1', NULL, NULL, '[null,null,null,[],false]', 'r1'], false, NULL, 'r1', 'a', 10, false
);
SELECT event_seq FROM verbs.append(
    NULL, 1, 'run-' || lpad(:id::text, 32, '0'), 'a', 't1', 10, 1,
    '[[1, "done", "search_flights", "d", "", 1, "{\"fare\": 120}", 13]]', NULL, NULL, NULL, 0, true
);
SELECT event_seq FROM verbs.append(
    NULL, 1, 'run-' || lpad(:id::text, 32, '0'), 'a', 't2', 10, 2,
    '[[2, "done", "search_flights", "d", "", 2, "{\"fare\": 120}", 13]]', NULL, NULL, NULL, 0, true
);
SELECT event_seq FROM verbs.append(
    NULL, 1, 'run-' || lpad(:id::text, 32, '0'), 'a', 't3', 10, 3,
    '[[3, "done", "search_flights", "d", "", 3, "{\"fare\": 120}", 13]]', NULL, NULL, NULL, 0, true
);
SELECT state FROM verbs.settle(
    NULL, 1, '{r1}', 1, 'run-' || lpad(:id::text, 32, '0'), 'a', 'complete', 'function returned', 0, '{}', NULL, false,
    900, '{"result": {"content": [{"type": "text", "text": "booked"}]}, "error": null}', NULL, NULL, 0, NULL, NULL, NULL,
    NULL, 0, false
);
