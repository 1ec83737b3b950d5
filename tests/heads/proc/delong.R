# The numbers that test_proc.py expects: AUROCs, their DeLong covariance and test by R's pROC.
#   Rscript delong.R cases.csv > expected.csv
suppressPackageStartupMessages(library(pROC))
cases <- read.csv(commandArgs(trailingOnly = TRUE)[1])
rows <- lapply(split(cases, cases$case), function(case) {
  curve <- function(scores) {
    roc(case$label, scores, levels = c(0, 1), direction = "<", quiet = TRUE)
  }
  first <- curve(case$first)
  second <- curve(case$second)
  test <- roc.test(first, second, method = "delong", paired = TRUE)
  data.frame(
    case = case$case[1],
    first = as.numeric(auc(first)), second = as.numeric(auc(second)),
    variance_first = pROC::var(first, method = "delong"),
    variance_second = pROC::var(second, method = "delong"),
    covariance = pROC::cov(first, second, method = "delong"),
    z = unname(test$statistic), p = test$p.value,
    low = test$conf.int[1], high = test$conf.int[2]
  )
})
options(digits = 15)
write.csv(do.call(rbind, rows), row.names = FALSE, quote = FALSE)
