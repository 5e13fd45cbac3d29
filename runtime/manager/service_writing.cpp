// The part of Service that keeps the order: first on the disk, then answered.

#include <algorithm>
#include <iterator>

#include "runtime/base/log.hpp"
#include "runtime/manager/service.hpp"

namespace sublet::manager {
namespace {

constexpr std::chrono::milliseconds disk_slow{1000};
constexpr std::chrono::milliseconds write_pause{1000};  // Between tries while the disk refuses.

Error unwritable_error(const std::string& why) {
  return {Errc::unavailable,
          "the manager cannot write its state, so it promises nothing new: " + why + "; try again later"};
}

}  // namespace

bool Service::refuse_unwritable(const Responder& responder) {
  if (!unwritable_) return false;
  responder.send(unwritable_error(*unwritable_));
  return true;
}

void Service::promise(const Responder& responder, control::HttpReply reply, std::function<void()> undo,
                      std::function<void()> then) {
  promises_.push_back({.responder = responder,
                       .reply = std::move(reply),
                       .undo = std::move(undo),
                       .then = std::move(then),
                       .made = steady_()});
  write_soon();
}

void Service::promise_soon(const Responder& responder, control::HttpReply reply) {
  promises_.push_back(
      {.responder = responder, .reply = std::move(reply), .urgent = false, .made = steady_()});
  write_soon();
}

void Service::promise_lease(const Responder& responder, control::HttpReply reply,
                            std::function<void()> undo) {
  promises_.push_back({.responder = responder,
                       .reply = std::move(reply),
                       .undo = std::move(undo),
                       .synced = false,
                       .urgent = false,
                       .made = steady_()});
  write_soon();
}

bool Service::disk_is_slow(TimePoint now) const noexcept {
  return (writing_ && now - write_began_ > disk_slow) ||
         (!syncing_.empty() && now - syncing_.front().second.made > disk_slow);
}

bool Service::anything_to_write() const noexcept {
  return !pending_.empty() || table_.dirty();
}

/// In a moment: what else has arrived by then goes into the same transaction.
void Service::write_soon() {
  if (writing_ || write_posted_) return;
  write_posted_ = true;
  loop_.post([this] {
    write_posted_ = false;
    write_now();
  });
}

void Service::write_now() {
  if (writing_ || (unwritable_ && steady_() < write_again_at_)) return;
  if (promises_.empty() && !anything_to_write() && !unwritable_) return;
  writing_ = std::make_shared<Batch>(std::exchange(pending_, {}));
  writing_->append({.rows = table_.take_rows(), .now = now(), .first_id = table_.next_id()});
  written_promises_ = std::exchange(promises_, {});
  writing_->urgent = std::any_of(written_promises_.begin(), written_promises_.end(),
                                 [](const Promise& promise) { return promise.urgent; });
  write_began_ = steady_();
  store_->write(writing_,
                [this](const Status& written) { loop_.post([this, written] { on_written(written); }); });
}

void Service::on_written(const Status& written) {
  const std::shared_ptr<Batch> batch = std::exchange(writing_, nullptr);
  std::vector<Promise> promises = std::exchange(written_promises_, {});
  metrics_.count_write(std::chrono::duration_cast<std::chrono::microseconds>(steady_() - write_began_),
                       written.ok());
  if (written) {
    ++writes_;
    if (unwritable_ && !sync_failed_) {
      unwritable_.reset();
      log::info("the state can be written again");
      try_waiters();
    }
    for (Promise& promise : promises) {
      if (promise.synced) {
        syncing_.emplace_back(writes_, std::move(promise));
      } else {
        keep(std::move(promise));
      }
    }
  } else {
    // What happened has happened: it is written with the next transaction that succeeds. But nothing that
    // was to be promised is.
    Batch later = std::exchange(pending_, std::move(*batch));
    pending_.append(std::move(later));
    // Those made since may rest on what is taken back.
    std::move(promises_.begin(), promises_.end(), std::back_inserter(promises));
    promises_.clear();
    fail(promises, written.error().detail());
  }
  settle();
  end_if_done();
}

void Service::on_synced(std::uint64_t writes, const Status& synced) {
  std::vector<Promise> failed;
  while (!syncing_.empty() && syncing_.front().first <= writes) {
    Promise promise = std::move(syncing_.front().second);
    syncing_.pop_front();
    if (synced && !sync_failed_) {
      keep(std::move(promise));
    } else {
      failed.push_back(std::move(promise));
    }
  }
  if (!synced) {
    // The system forgets what it could not bring to the disk, and says so once: nothing later can be trusted.
    sync_failed_ = true;
    fail(failed, synced.error().detail() + "; mend the disk and start the manager again");
  }
  settle();
  end_if_done();
}

void Service::keep(Promise promise) {
  if (promise.then) promise.then();
  promise.responder.send(std::move(promise.reply));
}

void Service::fail(const std::vector<Promise>& promises, const std::string& why) {
  if (!unwritable_) log::error("cannot write the state: " + why);
  unwritable_ = why;
  write_again_at_ = steady_() + write_pause;
  for (const Promise& promise : promises) {
    if (promise.undo) promise.undo();
    promise.responder.send(unwritable_error(why));
  }
}

void Service::shut_down(std::function<void()> done) {
  closing_ = true;
  closed_ = std::move(done);
  store_->interrupt();
  const Error ending(Errc::unavailable, "the manager is ending");
  for (const auto& [number, waiter] : waiters_) waiter.responder.send(ending);
  for (const auto& [number, waiter] : waiters_) waiting_.remove(number);
  waiters_.clear();
  for (const auto& [node, poll] : polls_) poll.responder.send(ending);
  polls_.clear();
  write_now();
  end_if_done();
}

void Service::end_if_done() {
  if (!closing_ || writing_ || !syncing_.empty()) return;
  if (!unwritable_ && (anything_to_write() || !promises_.empty())) return write_now();
  if (auto done = std::exchange(closed_, nullptr)) done();
}

}  // namespace sublet::manager
