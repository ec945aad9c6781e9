"""The tests that check each sentence of ``Bus``, ``Subscription`` and the values that they
exchange.
"""

from flowkit.protocols import Bus, Delivery, Message, Subscription, TopicSpec
from flowkit_testing.conformance import BusConformance
from tests.conformance.promises import DEFINITION, PromiseTable

CAPABILITIES = "tests/coordinator/test_bus_capabilities.py"
EVERY_CALL = "test_every_call_ends_while_the_server_is_stopped"
PLACES = "test_publish_returns_the_places_that_the_deliveries_have"

TOPIC_SPEC = {
    "": {
        "A topic that the installation needs.": DEFINITION,
        "The members of a group share the messages of a topic.": [
            "test_the_members_of_a_group_share_the_messages"
        ],
        "Subscribers without a group read ``broadcast`` topics.": [
            "test_every_listener_gets_every_message"
        ],
        (
            "The bus keeps a bounded number of messages of a ``broadcast`` topic, or keeps them"
            " for a bounded time."
        ): [
            "test_the_server_keeps_a_bounded_number_of_broadcast_messages",
        ],
        "A subscriber that falls further behind misses messages.": DEFINITION,
    },
}

MESSAGE = {
    "": {
        "Message to publish.": [
            "test_a_value_arrives_as_it_was_sent",
            "test_headers_arrive_as_they_were_sent",
        ],
        "Messages with the same ``key`` belong together.": ["test_a_key_arrives_as_it_was_sent"],
    },
    "durable": {
        "The message survives a power failure once it is published.": [
            (
                "tests/sqlite/test_power_failure.py::test_what_led_to_a_handler_survives_a_power"
                "_failure_after_the_handler_began"
            )
        ],
        "Others may be lost in one, on a bus that is a file of one machine.": DEFINITION,
        "A bus may ignore this and make each message durable.": DEFINITION,
    },
}

DELIVERY = {
    "": {
        "A message as a subscriber receives it.": DEFINITION,
        (
            "``partition`` and ``position`` are numbers from 0 to 2**63 - 1, which together"
            " identify a message within its topic."
        ): [
            "test_within_a_partition_messages_come_in_order",
        ],
        ("Positions increase within a partition."): [
            "test_within_a_partition_messages_come_in_order"
        ],
        "A position is used again only after the message that had it was lost.": [
            "test_messages_of_a_key_come_from_one_partition_with_growing_positions",
        ],
        "``handle`` belongs to the bus.": DEFINITION,
        ("``timestamp`` is the time of the message in seconds since 1970, if the bus knows it."): [
            (
                "tests/kafka/test_trigger_source.py::test_a_group_begins_at_its_time_goes_on_where_it"
                "_was_and_knows_how_far_it_is_behind"
            ),
        ],
    },
}

SUBSCRIPTION = {
    "": {
        "The messages of some topics, for one subscriber.": [
            "test_a_subscription_hears_all_its_topics",
            "test_a_subscription_hears_only_its_topics",
        ],
        "One task at a time calls :meth:`receive`.": DEFINITION,
        "Any task may call the other methods, also while a :meth:`receive` waits.": [
            "test_another_task_may_acknowledge",
            "test_acknowledging_while_a_receive_waits_is_allowed",
        ],
    },
    "receive": {
        "Wait for messages and return between 1 and ``max_messages`` of them.": [
            "test_receive_waits_while_there_is_no_message",
            "test_receive_returns_when_there_is_a_message",
            "test_no_more_messages_come_than_were_asked_for",
        ],
        "Every message of the topics is delivered to the group at least once.": [
            "test_equal_messages_all_arrive",
            "test_nothing_is_lost_while_members_come_and_go",
            "test_messages_published_at_the_same_time_all_arrive",
        ],
        (
            "A message that was not acknowledged is delivered again when its member leaves,"
            " crashes or loses the partition."
        ): [
            "test_what_a_leaving_member_had_not_acknowledged_comes_to_another",
            "test_what_a_killed_member_had_comes_to_another",
            "test_what_comes_again_to_another_member_is_the_same_message",
            "test_a_member_that_was_suspended_does_not_acknowledge_for_another",
        ],
        "If a connection breaks, messages in transit are delivered again.": [
            "test_messages_on_their_way_when_a_connection_breaks_are_delivered",
        ],
        (
            "A live member keeps its messages, however long it takes to acknowledge them, unless"
            " members join or leave the group."
        ): [
            "test_a_live_member_keeps_what_it_has_not_acknowledged",
            "test_unacknowledged_messages_are_not_given_twice_to_a_member",
        ],
        "The messages of one partition are delivered for the first time in order.": [
            "test_within_a_partition_messages_come_in_order"
        ],
        "A cancelled ``receive`` loses no message.": ["test_cancelling_a_receive_loses_no_message"],
        (
            "While ``max_unacked`` messages are neither acknowledged nor released, no more are"
            " delivered."
        ): [
            "test_no_more_than_the_window_is_given_unacknowledged",
            "test_answering_makes_room_in_the_window",
            "test_a_receive_that_waits_for_room_goes_on_when_there_is_some",
            "test_a_window_that_empties_again_and_again_lets_everything_through",
        ],
        (
            "A member takes a bounded number of messages from the server before its caller"
            " receives them."
        ): [
            "test_a_member_takes_a_bounded_number_of_messages_ahead",
        ],
        (
            "Without ``key_affinity``, such messages go to other members soon if the caller does"
            " not receive them."
        ): [
            "test_messages_that_an_idle_member_does_not_receive_go_to_others",
        ],
        (
            "Raises BusUnavailable: the bus was unavailable for longer than the adapter waits; the"
            " next call continues."
        ): [
            "test_receiving_raises_while_the_server_is_stopped_and_continues_afterwards",
        ],
    },
    "ack": {
        "Acknowledge messages, so that they are not delivered to the group again.": [
            "test_acknowledged_messages_do_not_come_again",
            "test_releasing_what_was_acknowledged_does_nothing",
            "test_acknowledging_nothing_is_allowed",
        ],
        (
            "After a crash, a rebalance or an outage, messages that were acknowledged a few"
            " seconds before may be delivered again."
        ): (DEFINITION),
        "Messages may be acknowledged in any order.": ["test_a_gap_that_is_closed_later_is_closed"],
        (
            "A message that was not acknowledged is delivered again after its member is gone, even"
            " if a later one was acknowledged."
        ): [
            "test_acknowledging_a_later_message_does_not_acknowledge_an_earlier_one",
        ],
        "Acknowledging a message twice does nothing.": [
            "test_acknowledging_twice_does_nothing",
            "test_acknowledging_twice_makes_room_once",
        ],
        "Acknowledging a message that has gone to another member does nothing.": [
            "test_acknowledging_after_the_partition_moved_on_does_nothing",
            "test_a_member_that_was_suspended_does_not_acknowledge_for_another",
        ],
        (
            "Raises BusUnavailable: some of the messages were not acknowledged; the caller may try"
            " again."
        ): [
            EVERY_CALL,
            "test_messages_on_their_way_when_a_connection_breaks_are_delivered",
        ],
    },
    "release": {
        "Give messages back, so that they are delivered again soon, to this member or another.": [
            "test_released_messages_come_again",
            "test_only_what_was_released_comes_again",
            "test_what_was_released_before_leaving_comes_to_the_next_member",
        ],
        (
            "Raises BusUnavailable: some of the messages were not released; the caller may try"
            " again."
        ): [
            EVERY_CALL,
            "test_a_release_while_the_server_is_stopped_raises_or_gives_back",
            "tests/coordinator/test_inbox.py::test_reports_come_again_after_a_release_that_failed",
        ],
    },
    "reject": {
        "Store messages in the dead-letter topic with the ``reason``, and acknowledge them.": [
            "test_a_rejected_message_is_parked_with_its_origin_and_the_reason",
            "test_each_of_several_rejected_messages_is_parked",
            "test_a_rejected_message_does_not_come_again",
            "test_the_partition_goes_on_behind_a_rejected_message",
        ],
        (
            "A dead letter has the value and key of the message and the headers"
            " ``flowkit-reason``, ``flowkit-topic``, ``flowkit-partition`` and"
            " ``flowkit-position``."
        ): ["test_a_rejected_message_is_parked_with_its_origin_and_the_reason"],
        "A message is acknowledged only after its dead letter was stored.": [
            "test_a_dead_letter_that_cannot_be_stored_leaves_its_message",
            "test_a_cancelled_reject_loses_no_message",
        ],
        "Raises BusError: a dead letter was not stored, and its message was not acknowledged.": [
            "test_a_dead_letter_that_cannot_be_stored_leaves_its_message",
            "test_a_reject_that_is_not_confirmed_acknowledges_nothing",
        ],
    },
}

BUS = {
    "": {
        "A message bus.": DEFINITION,
        "Entering it connects; leaving it sends buffered messages and closes what was opened.": [
            "test_entering_gives_the_bus_itself",
            "test_leaving_sends_what_is_buffered",
            "test_a_connection_that_closes_gives_its_messages_back",
        ],
        "Several tasks may use it at the same time.": [
            "test_messages_published_at_the_same_time_all_arrive",
            EVERY_CALL,
        ],
        "Names of topics and groups are compared exactly.": [
            "test_the_names_of_topics_are_compared_exactly",
            "test_the_names_of_groups_are_compared_exactly",
        ],
        (
            'Where these docstrings say "soon", the conformance suite allows its ``patience``,'
            " which is 30 seconds unless the adapter's author sets it."
        ): (DEFINITION),
    },
    "max_message_bytes": {
        "Length of the largest value that :meth:`publish` accepts.": [
            "test_a_value_of_the_limit_is_taken",
            "test_a_value_above_the_limit_is_refused_and_nothing_is_sent",
        ],
    },
    "places": {
        "Whether :meth:`publish` returns places and :meth:`outstanding` returns positions.": [
            PLACES,
            "test_a_bus_without_places_answers_none",
        ],
        (
            "Without it, coordinators send a command again when no worker has started it for a"
            " while."
        ): [
            f"{CAPABILITIES}::test_a_lost_command_is_sent_again_where_the_bus_does_not_know_where_it_is",
            f"{CAPABILITIES}::test_the_pauses_between_the_copies_of_a_command_grow",
        ],
        "They send the same token, so that the worker which has the command ignores the copy.": [
            f"{CAPABILITIES}::test_flows_finish_on_a_bus_that_knows_less_and_loses_messages",
        ],
    },
    "key_affinity": {
        (
            "Whether the messages of a topic with one key go to one member of a group, in order,"
            " until members join or leave."
        ): [
            "test_the_messages_of_a_key_go_to_one_member",
        ],
        "This is an optimisation: coordinators keep the tasks of their partitions in memory.": [
            f"{CAPABILITIES}::test_the_simulation_finds_nothing_on_a_bus_that_knows_less",
        ],
        "Without it, a cluster was 20 % slower.": DEFINITION,
    },
    "replay_for_new_groups": {
        "Whether a new group receives the messages that were published before it existed.": [
            "test_a_new_group_starts_with_the_oldest_message_kept",
        ],
        (
            "Without it, coordinators send a command again, at most a minute apart, until a worker"
            " of its role has started it."
        ): [
            f"{CAPABILITIES}::test_a_worker_that_comes_late_gets_its_commands_from_a_bus_without_replay",
        ],
    },
    "ensure_topics": {
        "Create the topics that do not exist, if that is allowed.": [
            "test_ensuring_no_topics_is_allowed",
            PLACES,
        ],
        "Existing ones are not changed.": ["test_ensuring_topics_twice_changes_nothing"],
        "Raises BusError: a topic does not exist and may not be created; the message names it.": [
            "test_a_topic_that_may_not_be_created_is_an_error_that_names_it",
        ],
        "Raises BusUnavailable: the bus is unavailable.": [EVERY_CALL],
    },
    "publish": {
        "Send messages.": [
            "test_publishing_nothing_is_allowed",
            "test_one_call_may_publish_to_several_topics",
            "test_what_the_publisher_changes_afterwards_is_not_seen",
        ],
        "When the call returns, all of them are durable and will be delivered.": [
            "test_what_was_published_outlives_the_connection",
            "test_publishing_raises_while_the_server_is_stopped",
        ],
        (
            "Return the place of each message: the partition and position that its deliveries have."
        ): [PLACES],
        "A place is None if the bus does not know it.": ["test_a_bus_without_places_answers_none"],
        (
            "With ``key_affinity``, messages with the same topic and key are delivered in the"
            " order given, also over several calls."
        ): [
            "test_messages_of_a_key_keep_their_order_within_a_call",
            "test_messages_of_a_key_keep_their_order_over_several_calls",
            "test_each_key_keeps_its_order_among_others",
        ],
        "A topic that does not exist is created, or ``publish`` raises a BusError.": [
            "test_publishing_to_a_topic_that_does_not_exist_creates_it_or_raises",
        ],
        "Raises MessageTooLarge: a value is larger than ``max_message_bytes``; nothing was sent.": [
            "test_a_value_above_the_limit_is_refused_and_nothing_is_sent",
        ],
        (
            "Raises BusUnavailable: not all messages were confirmed, and any of them may have been"
            " sent. The error is a TopicUnavailable if the bus knows that only a topic of these"
            " messages is unavailable."
        ): [
            "test_publishing_raises_while_the_server_is_stopped",
            "tests/kafka/test_lost_topics.py::test_a_topic_that_is_missing_delays_no_messages_of_others",
        ],
    },
    "outstanding": {
        "Return the first unacknowledged position of a group, and the end, by partition.": [
            "test_what_was_not_acknowledged_is_to_come",
            "test_the_progress_of_a_group_is_known_while_no_member_listens",
            "test_how_far_a_group_is_is_its_own_affair",
        ],
        (
            "A message published before the call whose position is below the first, or at or above"
            " the end, or whose partition is not in the answer, was acknowledged or is lost: it is"
            " not delivered any more, unless the group is set back."
        ): [
            "test_what_was_acknowledged_is_not_to_come",
            "test_each_message_is_to_come_once_it_is_published",
            "test_everything_is_to_come_to_a_group_that_does_not_exist",
        ],
        "A message in between may still be delivered.": [
            f"{CAPABILITIES}::test_a_message_that_is_never_acknowledged_does_not_hide_a_loss_for_ever",
        ],
        "The first may be a few seconds behind the acknowledgements.": DEFINITION,
        "For a group that does not exist, the first is the position that it would start with.": [
            "test_everything_is_to_come_to_a_group_that_does_not_exist",
        ],
        "A topic that does not exist has no partitions.": [
            "test_a_topic_that_does_not_exist_has_no_partitions"
        ],
        (
            "The answer is None if the bus does not know the progress, and always on a bus without"
            " ``places``."
        ): ["test_a_bus_without_places_answers_none"],
        (
            "Raises BusUnavailable: the bus is unavailable. The error is a TopicUnavailable if"
            " only this topic is unavailable."
        ): [
            EVERY_CALL,
            "tests/coordinator/test_topics_in_trouble.py::test_lost_commands_of_other_topics_are_found_while_one_cannot_be_asked",
        ],
    },
    "subscribe": {
        "Receive the messages of topics while the context is open.": ["test_two_connections_meet"],
        "With a ``group``, each message goes to one member of the group.": [
            "test_the_members_of_a_group_share_the_messages",
            "test_every_group_gets_every_message",
        ],
        (
            "A group that is new to a topic starts with the oldest message kept, or, without"
            " ``replay_for_new_groups``, with the first one published after its first member had"
            " entered."
        ): [
            "test_a_new_group_starts_with_the_oldest_message_kept",
            "test_a_group_that_is_new_to_a_topic_starts_with_the_oldest_message_kept",
        ],
        "Messages are kept for a group while it has no members.": [
            "test_messages_published_while_no_member_listens_are_kept_for_the_group"
        ],
        (
            "A message that a group has not acknowledged is removed neither because there are many"
            " messages nor because other groups acknowledge it."
        ): [
            "test_no_number_of_messages_removes_one_that_is_not_acknowledged",
            "test_acknowledgements_remove_no_message_that_another_group_has_not_acknowledged",
            "test_an_acknowledgement_counts_for_its_group_only",
        ],
        "Members may subscribe to different topics.": [
            "test_members_may_listen_to_different_topics",
            "test_a_member_may_listen_to_more_topics_than_another",
        ],
        "Leaving gives unacknowledged messages back to the group at once.": [
            "test_what_a_leaving_member_had_not_acknowledged_comes_to_another",
            "test_unacknowledged_messages_wait_for_the_next_member",
            "test_a_member_whose_task_is_cancelled_gives_back_what_it_had",
        ],
        (
            "With ``group=None``, the subscriber receives every message that is published after it"
            " was entered, also after its connection broke."
        ): [
            "test_a_listener_gets_what_is_published_right_after_it_was_entered",
            "test_a_listener_does_not_get_what_was_published_before",
            "test_a_listener_gets_the_messages_of_a_key_in_order",
            "test_a_listener_does_not_take_messages_from_a_group",
            "test_a_listener_misses_nothing_when_its_connection_breaks",
        ],
        "Such a subscriber has nothing to acknowledge, and nothing is kept for it after it left.": [
            "test_a_listener_has_nothing_to_acknowledge",
            "test_nothing_is_kept_for_a_listener_that_left",
        ],
        (
            "Subscribing to a topic that does not exist raises a BusError, or the subscriber"
            " receives the topic's messages once it exists."
        ): [
            "test_a_subscription_to_a_topic_that_does_not_exist_gets_its_messages_later_or_raises",
        ],
        "Raises BusUnavailable: the bus is unavailable.": [EVERY_CALL],
    },
    "check": {
        "Return the results for ``flowkit doctor``.": ["test_check_answers_for_topics_that_exist"],
        "It does not raise: the results name the problems.": [
            "test_check_raises_nothing_for_a_topic_that_does_not_exist",
            EVERY_CALL,
        ],
    },
}

TABLES = [
    PromiseTable(TopicSpec, [BusConformance], TOPIC_SPEC),
    PromiseTable(Message, [BusConformance], MESSAGE),
    PromiseTable(Delivery, [BusConformance], DELIVERY),
    PromiseTable(Subscription, [BusConformance], SUBSCRIPTION),
    PromiseTable(Bus, [BusConformance], BUS),
]
